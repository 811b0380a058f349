"""sha256 of files and of folders, and seeds that are made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's content, in lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Hashed:
    """A file's digest, and by what it is seen whether the file is still the one that was hashed."""

    digest: str
    """sha256 in lower-case hex."""
    stamp: tuple[int, ...]
    """Device, inode, size, mtime and ctime before it was hashed, or after it was written."""

    @classmethod
    def of(cls, path: Path, digest: str = "") -> Hashed:
        """Hash a file, unless the digest is known because it was just written.

        Args:
            path: of the file; a link is followed.
            digest: its sha256; empty: it is read.

        Raises:
            OSError: the file cannot be read.
        """
        stamp = _stamp(path)
        return cls(digest or sha256_file(path), stamp)

    def holds(self, path: Path) -> bool:
        """Return whether nothing has written to the file or put another one in its place."""
        try:
            return _stamp(path) == self.stamp
        except OSError:
            return False


def _stamp(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def sha256_json(data: Any) -> str:
    """Return the sha256 of JSON data, whatever the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_list(digests: Mapping[str, str]) -> str:
    """Return one digest for a set of files: sha256 of the lines ``<hex>  <path>``, sorted by path."""
    lines = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    return hashlib.sha256(lines.encode()).hexdigest()


def seed_of(*names: str | int) -> int:
    """Return a seed in [0, 2**60) for what ``names`` name."""
    return int(sha256_json(list(names))[:15], 16)
