"""A ``membranes/`` folder as a step leaves it, with random factors that fit a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from publisher.api import ModelInfo
from publisher.api.membranes import FOLDER, INDEX, MembraneEntry, MembraneIndex, Transport, find_hosts, membrane_bytes
from publisher.model.files import write_atomic
from support.membrane_files import random_membrane


def artifacts(model: ModelInfo, concepts: Sequence[str], **index: Any) -> dict[str, bytes]:
    """Name below ``release/`` -> content; a membrane is shut for prompts without its concept's name."""
    files, entries = {}, []
    for seed, concept in enumerate(concepts):
        data = membrane_bytes(random_membrane(find_hosts(model), seed=seed, prompts=(concept,)))
        name = f"{concept}.safetensors"
        files[f"{FOLDER}/{name}"] = data
        digest = hashlib.sha256(data).hexdigest()
        entries.append(
            MembraneEntry(concept=concept, file=name, sha256=digest, words=(concept,), texts=(concept,), rank=1)
        )
    rule: dict[str, Any] = {"mode": "bundle", "transport": Transport(score="overlap", threshold=0.5), **index}
    return {**files, INDEX: MembraneIndex(entries=tuple(entries), **rule).as_file()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Put them there."""
    for name, data in files.items():
        write_atomic(folder / name, data)
    return folder
