"""One run at a time on one work folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from publisher.errors import BusyError


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Hold the work folder; made if it is not there.

    Raises:
        BusyError: another run holds it.
    """
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(
            "another run is using this work folder",
            where=str(work),
            hint="Wait for it, or give another folder with --work.",
        ) from error
    try:
        yield
    finally:
        lock.release()
