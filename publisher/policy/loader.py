"""From a file to a policy: the manifest's strict reader, every problem with its place, and the keys that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import ManifestError, Problem, UsageError
from publisher.manifest.loader import read_bytes, validated
from publisher.manifest.places import Path as Keys
from publisher.manifest.places import Places
from publisher.manifest.reader import Reading
from publisher.package.keys import load_public
from publisher.policy.schema import Policy


@dataclass(frozen=True)
class LoadedPolicy:
    """A well-formed policy with the places of everything in it."""

    path: Path
    """Path as the user gave it."""
    policy: Policy
    places: Places
    sha256: str
    """sha256 of the file's bytes."""
    keys: Mapping[str, Path]
    """sha256 of each public key that may sign -> its file; empty: any may."""

    def problem(self, keys: Keys, message: str, hint: str = "") -> Problem:
        """Return a problem with something that the policy asks, at the place where it does."""
        mark = self.places.key(keys)
        return Problem(mark.line, mark.column, message, hint)


def load_policy(path: Path) -> LoadedPolicy:
    """Read a policy.

    Raises:
        ManifestError: with every problem found.
        UsageError: the file cannot be read.
    """
    raw = read_bytes(path, "a policy")
    reading = Reading(raw, "policy")
    policy = validated(reading, Policy) if reading.complete else None
    keys = _keys(policy, path.parent, reading) if policy else {}
    if policy is None or len(reading.problems):
        raise ManifestError(str(path), list(reading.problems))
    return LoadedPolicy(path, policy, reading.places, hashlib.sha256(raw).hexdigest(), keys)


def _keys(policy: Policy, folder: Path, reading: Reading) -> dict[str, Path]:
    found = {}
    for number, name in enumerate(policy.keys or ()):
        try:
            found[load_public(folder / name).hint] = folder / name
        except UsageError as error:
            reading.problems.at_value(("keys", number), f"the key '{name}' cannot be used: {error.what}", error.hint)
    return found
