"""Where a release is made: under a name that no other run has, beside the one that the package gets at last."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import UsageError
from publisher.manifest.schema import Release
from publisher.model.files import cannot_write, partial, partial_prefix


@dataclass(frozen=True)
class ReleasePlaces:
    """Folders of one release."""

    target: Path
    """The package, once it is complete."""
    folder: Path
    """The package until then."""
    work: Path
    give_key: bool = False
    """The public key goes beside the package."""


def target_of(about: Release, out: Path) -> Path:
    """Return the package's path in the output folder."""
    return out / f"{about.name}-{about.version}"


def reports_of(target: Path) -> Path:
    """Return the folder of the package's reports: it is there whatever the decision."""
    return target.with_name(f"{target.name}.report")


def require_writable(*folders: Path) -> None:
    """Make sure that files can be written below these folders, as far as one can tell without writing any.

    Raises:
        UsageError: one is a file, or lies where nothing can be written.
    """
    for folder in folders:
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
        if not there.is_dir():
            raise UsageError("is no folder", where=str(there), hint="Give another folder with --out or --work.")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(
                "cannot be written to", where=str(there), hint="Make it writable, or give another with --out or --work."
            )


def key_of(target: Path) -> Path:
    """Return the file of the public key that belongs to a package signed for trying it out."""
    return target.with_name(f"{target.name}.pub")


@contextmanager
def told() -> Iterator[None]:
    """Turn what the system will not do inside this block into an error that says where, and what to do next.

    Raises:
        PublisherError: in place of an ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(error.filename or "this machine", error) from error


@contextmanager
def complete(package: Path | None) -> Iterator[None]:
    """Let an interruption inside this block say that the package is there: the same command would find it done."""
    try:
        yield
    except BaseException as error:
        if package:
            error.add_note(f"The package is complete, signed and verified: {package}")
        raise


@contextmanager
def place(target: Path) -> Iterator[Path]:
    """Make a folder beside the target, which is gone when the block ends, unless it was renamed.

    Nobody else makes a package of this name now: what runs that were killed have left is removed.

    Raises:
        UsageError: the target, or what its report would replace, is there already.
        PublisherError: the folder cannot be made.
    """
    if os.path.lexists(target):
        raise UsageError(
            "is there already", where=str(target), hint="Raise release.version, or give another folder with --out."
        )
    key = key_of(target)
    if key.is_dir():
        raise UsageError("is a folder, and the public key goes there", where=str(key), hint="Move it.")
    left = list(target.parent.glob(f"{glob.escape(partial_prefix(target))}*"))
    for path in (reports_of(target), *left):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UsageError("is no folder of ours, and a release would replace it", where=str(path), hint="Move it.")
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    with partial(target) as folder:
        yield folder
