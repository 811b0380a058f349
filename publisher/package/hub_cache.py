"""The cache of the hub's client: which links of a snapshot lead into its store, and nowhere else.

A snapshot is a folder of links::

    models--org--name/snapshots/<commit>/unet/config.json -> ../../../blobs/<name>

A file of the store is a regular file. Since huggingface_hub 2 it can be one more link, from the repository's store to
the one that all repositories of a cache share: ``blobs/<first two digits>/<64 hexadecimal digits>`` beside them.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import stat
from dataclasses import dataclass
from pathlib import Path

OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a foreign file is opened: no link, and without waiting for the other end of a pipe."""
STORE = "blobs"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARED = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})")


@dataclass(frozen=True)
class HubCache:
    """A snapshot's place in a cache."""

    repository: Path
    """The repository's folder in the cache, ``models--org--name``, without links in its path."""
    snapshot: str
    """Path of the snapshot below it."""

    @classmethod
    def around(cls, folder: Path) -> HubCache | None:
        """Return the cache that a folder is a snapshot of; None: it is no snapshot."""
        real = Path(os.path.realpath(folder))
        repository = real.parent.parent
        named = _COMMIT.fullmatch(real.name) and real.parent.name == "snapshots"
        if not named or not repository.name.startswith("models--"):
            return None
        return cls(repository, f"snapshots/{real.name}")

    def open(self, path: str, link: str) -> int:
        """Open what a link of the snapshot stands for.

        Args:
            path: of the link in the snapshot.
            link: what it says.

        Returns:
            A descriptor of a regular file in the store, of one name.

        Raises:
            OSError: the link leads elsewhere, or to something else.
        """
        folder = self.repository / self.snapshot / posixpath.dirname(path)
        name = _below(self.repository / STORE, folder, link)
        store = os.open(self.repository / STORE, OPEN | os.O_DIRECTORY)
        try:
            if not name or "/" in name:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            status = os.stat(name, dir_fd=store, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                found = self._open_shared(os.readlink(name, dir_fd=store))
            else:
                found = os.open(name, OPEN, dir_fd=store)
        finally:
            os.close(store)
        return _regular(found)

    def _open_shared(self, link: str) -> int:
        """Open a file of the store that all repositories of the cache share."""
        shared = self.repository.parent / STORE
        match = _SHARED.fullmatch(_below(shared, self.repository / STORE, link))
        if match is None:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        store = os.open(shared, OPEN | os.O_DIRECTORY)
        try:
            folder = os.open(match[1], OPEN | os.O_DIRECTORY, dir_fd=store)
        finally:
            os.close(store)
        try:
            return os.open(match[2], OPEN, dir_fd=folder)
        finally:
            os.close(folder)


def _below(store: Path, folder: Path, link: str) -> str:
    """Return a link's target as seen from the store; empty if it is not below it. Nothing is followed for that."""
    target = posixpath.normpath(posixpath.join(folder, link))
    start = f"{store}/"
    return target.removeprefix(start) if target.startswith(start) else ""


def _regular(descriptor: int) -> int:
    """Return the descriptor, if it is of a regular file that has no second name."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
