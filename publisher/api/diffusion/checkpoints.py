"""Checkpoints in the step's scratch folder: safetensors and JSON, no pickle.

Tensors go to a file named after the step; the JSON beside it says which and with what digest, and is replaced last, in
one move: a run that is killed at any time leaves the last checkpoint or the one before it, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from publisher.api.artifacts import safetensors_bytes


class Unusable(Exception):  # noqa: N818 - no error: the run starts again
    """A checkpoint that is damaged or of another run."""


class Damaged(Unusable):
    """A checkpoint that cannot be read as it was written."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint of one run."""

    folder: Path
    """Folder of the checkpoint; made when it is needed."""
    name: str
    """Name of its files, without ending. No name of a folder's other checkpoints may begin with it and a dash."""
    identity: str
    """Digest of all that the result depends on."""

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep what there is after ``step`` steps; the checkpoint before is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        data = safetensors_bytes(tensors)
        file = f"{self.name}-{step}.safetensors"
        _replace(self.folder / file, data)
        said = {"file": file, "identity": self.identity, "sha256": hashlib.sha256(data).hexdigest(), "step": step}
        _replace(self._index, json.dumps(said, sort_keys=True).encode())
        for other in self.folder.glob(f"{self.name}-*.safetensors"):
            if other.name != file:
                other.unlink(missing_ok=True)

    def load(self) -> tuple[int, dict[str, Tensor]] | None:
        """Return steps done and tensors; None if there is no checkpoint.

        Raises:
            Damaged: the checkpoint cannot be read as it was written.
            Unusable: it is of another run.
        """
        if not self._index.exists():
            return None
        said = self._said()
        if said.get("identity") != self.identity:
            raise Unusable("is of a run with other parameters, texts, seed or weights")
        try:
            data = (self.folder / Path(str(said["file"])).name).read_bytes()
            if hashlib.sha256(data).hexdigest() != said["sha256"]:
                raise Damaged("is damaged: its digest is another")
            return int(said["step"]), load(data)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise Damaged(f"is damaged: {error}") from error

    def clear(self) -> None:
        """Remove the checkpoint, of whatever run it is."""
        self._index.unlink(missing_ok=True)
        for file in self.folder.glob(f"{self.name}-*.safetensors"):
            file.unlink()

    @property
    def _index(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _said(self) -> dict[str, Any]:
        try:
            said = json.loads(self._index.read_bytes())
        except (OSError, ValueError) as error:
            raise Damaged(f"is damaged: {error}") from error
        if not isinstance(said, dict):
            raise Damaged("is damaged: no JSON object")
        return said


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
