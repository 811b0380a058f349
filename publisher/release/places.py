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
from publisher.model.files import partial, partial_prefix


@dataclass(frozen=True)
class Places:
    """Folders of one release."""

    target: Path
    """The package, once it is complete."""
    folder: Path
    """The package until then."""
    work: Path


def target_of(about: Release, out: Path) -> Path:
    """Return the package's path in the output folder."""
    return out / f"{about.name}-{about.version}"


def reports_of(target: Path) -> Path:
    """Return the folder of the package's reports: it is there whatever the decision."""
    return target.with_name(f"{target.name}.report")


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
    left = list(target.parent.glob(f"{glob.escape(partial_prefix(target))}*"))
    for path in (reports_of(target), *left):
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UsageError("is no folder of ours, and a release would replace it", where=str(path), hint="Move it.")
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    with partial(target) as folder:
        yield folder
