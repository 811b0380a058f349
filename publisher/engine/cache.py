"""Results of steps, addressed by everything they depend on.

``<work>/steps/<key>/`` holds ``delta/<component>.safetensors``, ``artifacts/<name>`` and ``result.json``. The folder
gets its name by a rename when it is complete, so a key that exists is whole. ``result.json`` lists all other files by
digest, and carries a digest of its own; on use the files are hashed again, and one that is not listed counts as damage.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from publisher.api import Origin, Params, Scope, StepRecord
from publisher.engine.device import Device
from publisher.errors import PublisherError
from publisher.model.digest import sha256_file, sha256_json
from publisher.model.files import json_bytes, write_atomic
from publisher.model.state import Delta
from publisher.package.tree import read_tree

RESULT = "result.json"


class Stored(Params):
    """Content of ``result.json``."""

    key: str
    """Name of the entry."""
    record: StepRecord
    files: dict[str, str]
    """Path inside the entry -> sha256; there is no other file."""
    digest: str = ""
    """sha256 of all of the above."""

    def sealed(self) -> Stored:
        """Return the same with its digest."""
        return self.model_copy(update={"digest": sha256_json(self.as_json() | {"digest": ""})})

    def names(self) -> set[str]:
        """Return the files that the record speaks of."""
        deltas = {f"delta/{component}.safetensors" for component in self.record.changed}
        return deltas | {f"artifacts/{name}" for name in self.record.artifacts}


@dataclass(frozen=True)
class StepResult:
    """What a step left: its record, its delta, its artifacts."""

    record: StepRecord
    delta: Delta
    artifacts: Mapping[str, bytes]


@dataclass(frozen=True)
class Identity:
    """What a step's result depends on, besides the state it starts from."""

    name: str
    version: str
    origin: Origin
    id: str
    params: dict[str, Any]
    scope: Scope
    seed: int
    device: Device
    versions: Mapping[str, str]
    inputs: Mapping[str, str] = field(default_factory=dict)
    """File that the parameters name -> its sha256."""
    references: Mapping[str, Any] = field(default_factory=dict)
    """What its reference images depend on, as JSON; empty: it asks for none."""

    def key(self, state: str) -> str:
        """Name of the cache entry for a run that starts from the state with this digest."""
        seen = {"references": dict(self.references)} if self.references else {}
        return sha256_json(
            {
                "state": state,
                "step": [self.name, self.version],
                "origin": self.origin.as_json(),
                "id": self.id,
                "params": self.params,
                "scope": self.scope.as_json(),
                "seed": self.seed,
                "device": str(self.device),
                "versions": dict(self.versions),
                "inputs": dict(self.inputs),
                **seen,
            }
        )


class StepCache:
    """The finished steps of a work folder."""

    def __init__(self, work: Path) -> None:
        self._steps = work / "steps"
        self._scratch = work / "scratch"

    def has(self, key: str) -> bool:
        """Return whether there is an entry; it may still turn out to be damaged."""
        return (self._steps / key).is_dir()

    def load(self, key: str) -> StepResult | None:
        """Load the result, every file hashed again; None if it is not there or was changed."""
        folder = self._steps / key
        stored = self._stored(key)
        if stored is None:
            return None
        try:
            tree = read_tree(folder)
            if tree.findings or {name: one for name, one in tree.digests.items() if name != RESULT} != stored.files:
                return None
            record = stored.record
            artifacts = {name: (folder / "artifacts" / name).read_bytes() for name in record.artifacts}
            digests = {part: stored.files[f"delta/{part}.safetensors"] for part in record.changed}
            delta = Delta.of(folder / "delta", digests)
        except (OSError, PublisherError, ValueError):
            return None
        same = all(sha256(data).hexdigest() == stored.files[f"artifacts/{name}"] for name, data in artifacts.items())
        counts = {part: len(names) for part, names in delta.tensors.items()}
        return StepResult(record, delta, artifacts) if same and counts == record.changed else None

    def peek(self, key: str) -> StepRecord | None:
        """Return the record of an entry, without hashing its files; for plans."""
        stored = self._stored(key)
        return stored.record if stored else None

    def _stored(self, key: str) -> Stored | None:
        """Read ``result.json``; None if it is not what was written there."""
        try:
            stored = Stored.model_validate_json((self._steps / key / RESULT).read_bytes())
        except (OSError, ValidationError):
            return None
        return (
            stored if stored == stored.sealed() and stored.key == key and set(stored.files) == stored.names() else None
        )

    def discard(self, key: str) -> None:
        """Remove a damaged entry."""
        shutil.rmtree(self._steps / key, ignore_errors=True)

    def scratch(self, key: str) -> Path:
        """Return the folder for checkpoints of an unfinished step."""
        folder = self._scratch / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def begin(self, key: str) -> Path:
        """Make an empty folder to build the entry in."""
        folder = self._steps / f".{key}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def commit(self, key: str, folder: Path, record: StepRecord) -> None:
        """Make the entry visible, and forget the step's checkpoints."""
        stored = Stored(key=key, record=record, files={})
        files = {name: sha256_file(folder / name) for name in sorted(stored.names())}
        write_atomic(folder / RESULT, json_bytes(stored.model_copy(update={"files": files}).sealed().as_json()))
        shutil.rmtree(self._steps / key, ignore_errors=True)
        folder.rename(self._steps / key)
        shutil.rmtree(self._scratch / key, ignore_errors=True)
