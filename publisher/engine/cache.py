"""Results of steps, addressed by everything they depend on.

``<work>/steps/<key>/`` holds ``delta/<component>.safetensors``, ``artifacts/<name>`` and ``result.json``. The folder
gets its name by a rename when it is complete, so a key that exists is whole; on use its files are hashed again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from publisher.api import Origin, Params, Scope, StepRecord
from publisher.engine.device import Device
from publisher.model.digest import sha256_file, sha256_json
from publisher.model.files import json_bytes, write_atomic
from publisher.model.state import Delta


class Stored(Params):
    """``result.json``."""

    record: StepRecord
    files: dict[str, str] = Field(default_factory=dict)
    """Path inside the entry -> sha256."""


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
        return sha256_json({
            "state": state, "step": [self.name, self.version], "origin": self.origin.as_json(), "id": self.id,
            "params": self.params, "scope": self.scope.as_json(), "seed": self.seed, "device": str(self.device),
            "versions": dict(self.versions), "inputs": dict(self.inputs), **seen,
        })  # fmt: skip


class StepCache:
    """The finished steps of a work folder."""

    def __init__(self, work: Path) -> None:
        self._steps = work / "steps"
        self._scratch = work / "scratch"

    def has(self, key: str) -> bool:
        """Whether there is an entry; it may still turn out to be damaged."""
        return (self._steps / key).is_dir()

    def load(self, key: str) -> StepResult | None:
        """The result, every file hashed again; None if it is not there or was changed."""
        folder = self._steps / key
        try:
            stored = Stored.model_validate_json((folder / "result.json").read_bytes())
            if any(sha256_file(folder / name) != digest for name, digest in stored.files.items()):
                return None
            artifacts = {name: (folder / "artifacts" / name).read_bytes() for name in stored.record.artifacts}
            return StepResult(stored.record, Delta.read(folder / "delta"), artifacts)
        except (OSError, ValidationError, ValueError):
            return None

    def peek(self, key: str) -> StepRecord | None:
        """The record of an entry, without hashing its files; for plans."""
        try:
            return Stored.model_validate_json((self._steps / key / "result.json").read_bytes()).record
        except (OSError, ValidationError):
            return None

    def discard(self, key: str) -> None:
        """Remove a damaged entry."""
        shutil.rmtree(self._steps / key, ignore_errors=True)

    def scratch(self, key: str) -> Path:
        """The folder for checkpoints of an unfinished step."""
        folder = self._scratch / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def begin(self, key: str) -> Path:
        """An empty folder to build the entry in."""
        folder = self._steps / f".{key}.partial"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "delta").mkdir(parents=True)
        (folder / "artifacts").mkdir()
        return folder

    def commit(self, key: str, folder: Path, record: StepRecord) -> None:
        """Make the entry visible, and forget the step's checkpoints."""
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        stored = Stored(record=record, files={name: sha256_file(folder / name) for name in names})
        write_atomic(folder / "result.json", json_bytes(json.loads(stored.model_dump_json())))
        shutil.rmtree(self._steps / key, ignore_errors=True)
        folder.rename(self._steps / key)
        shutil.rmtree(self._scratch / key, ignore_errors=True)
