"""One run at a time on one work folder, on one name of a package, and on the folders of one training by slices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from publisher.errors import BusyError, UsageError


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Hold the work folder; made if it is not there.

    Raises:
        BusyError: another run holds it.
        UsageError: the folder or its lock cannot be made.
    """
    lock = FileLock(work / "lock")
    with _held(lock, "another run is using this work folder", work, "Wait for it, or give another folder with --work."):
        yield


@contextmanager
def named(target: Path) -> Iterator[None]:
    """Hold the name of a package, whatever work folder makes it; the lock's file is gone afterwards.

    Raises:
        BusyError: another run makes a package of this name.
        UsageError: its folder or the lock cannot be made.
    """
    path = target.with_name(f".{target.name}.lock")
    what = "another run is making a package of this name"
    with _held(FileLock(path), what, target, "Wait for it, or give another folder with --out."):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def training_folders(out: Path, private: Path) -> Iterator[None]:
    """Hold both folders of a training by slices; what becomes of `out` is given away, so no lock stays beside it.

    Raises:
        BusyError: another training holds one of them.
        UsageError: a folder or its lock cannot be made.
    """
    what, beside = "another training is using this folder", out.with_name(f".{out.name}.lock")
    other = "Wait for it, or give another folder with"
    with (
        _held(FileLock(private / "lock"), what, private, f"{other} --private."),
        _held(FileLock(beside), what, out, f"{other} --out."),
    ):
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def _held(lock: FileLock, what: str, where: Path, hint: str) -> Iterator[None]:
    path = Path(lock.lock_file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise BusyError(what, where=str(where), hint=hint) from error
    except OSError as error:
        raise UsageError(
            f"cannot be locked: {error.strerror or error}", where=str(path), hint="Give a folder that you can write to."
        ) from error
    try:
        yield
    finally:
        lock.release()
