"""A verified package beside what a hub lists: equal by digest, without fetching anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.hub.client import RemoteFile
from publisher.package.received import ATTRIBUTES
from publisher.package.summary import ReleaseSummary
from publisher.text import printable

SHOWN = 10
"""Files that a text names."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class LocalPackage:
    """A package that was verified."""

    folder: Path
    digests: Mapping[str, str]
    """Path of every file, the signature included -> sha256 in hex."""
    summary: ReleaseSummary
    key: str
    """sha256 of the public key that it was verified with; empty: with a certificate or an identity."""
    signer: str
    """Who signed it, in words."""

    @property
    def by(self) -> str:
        """Who signed it, with the whole digest of a key."""
        return f"the key {self.key}" if self.key else self.signer

    def differing(self, remote: Mapping[str, RemoteFile]) -> list[str]:
        """Return paths of files that the hub does not hold as they are."""
        return [path for path in sorted(self.digests) if path not in remote or not self._same(path, remote[path])]

    def foreign(self, remote: Mapping[str, RemoteFile]) -> list[str]:
        """Return paths of the hub's files that are not in the package, but the one that every repository has."""
        return sorted(remote.keys() - self.digests.keys() - {ATTRIBUTES})

    def _same(self, path: str, remote: RemoteFile) -> bool:
        """Return whether the hub holds this very file: large ones have a sha256 there, small ones git's sha1."""
        if remote.sha256:
            return remote.sha256 == self.digests[path]
        return (remote.sha1, self.digests[path]) == _git_names(self.folder / path)


def _git_names(path: Path) -> tuple[str, str]:
    """Return git's name of a file's content, and the sha256 of the same bytes."""
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    sha1.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha1.update(chunk)
            sha256.update(chunk)
    return sha1.hexdigest(), sha256.hexdigest()


def listed(paths: Sequence[str]) -> str:
    """Return the first of some paths in a text, with how many more there are."""
    names = ", ".join(printable(path) for path in paths[:SHOWN])
    return names if len(paths) <= SHOWN else f"{names} and {len(paths) - SHOWN} more"
