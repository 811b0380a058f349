"""The files of a network: which of them hold its weights, what they are for, and their digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from publisher.api import ModelError, PrerequisiteError

WEIGHTS, SHARDS, CONFIG, PROCESSOR = (
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "preprocessor_config.json",
)
"""Files of a folder that transformers wrote."""


def place_of(files: Mapping[str, Path], name: str) -> Path:
    """Return where an input lies.

    Raises:
        PrerequisiteError: it was not fetched.
    """
    if name not in files:
        hint = "Fetch it once on a machine with network and access: hf download ORG/NAME --revision COMMIT"
        raise PrerequisiteError(f"the weights {name!r} are not on this machine", hint=hint)
    return files[name]


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file.

    Raises:
        ModelError: it is not there, or holds no JSON object.
    """
    if not path.is_file():
        hint = "Name the folder of a model that transformers wrote, with its configuration and safetensors weights."
        raise ModelError("there is no such file", where=str(path), hint=hint)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"cannot be read as JSON: {error}", where=str(path)) from error
    if not isinstance(data, dict):
        raise ModelError("must hold a JSON object", where=str(path))
    return data


def weights_digest(folder: Path) -> str:
    """Return the sha256 of the weights in a folder of transformers: of the file, or of the list of its parts.

    Raises:
        ModelError: there are none.
    """
    names = weight_files(folder)
    if names == [WEIGHTS]:
        return file_digest(folder / WEIGHTS)
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in names]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def weight_files(folder: Path) -> list[str]:
    """Return the names of the files that hold the weights in a folder of transformers.

    Raises:
        ModelError: there are none, or one is missing.
    """
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if (folder / SHARDS).is_file():
        names = sorted(set(map(str, read_json(folder / SHARDS).get("weight_map", {}).values())))
        for name in names:
            if not (folder / name).is_file():
                raise ModelError("there is no such file", where=str(folder / name), hint="Fetch the whole model again.")
        return names
    hint = f"A model has its weights in {WEIGHTS}. Pickles are not read: convert them to safetensors first."
    raise ModelError("there are no weights in this folder", where=str(folder), hint=hint)


def file_digest(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        ModelError: it is not there.
    """
    if not path.is_file():
        raise ModelError("there is no such file", where=str(path), hint="Fetch the whole model again.")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def refuse_gaps(loading: Mapping[str, Any], folder: Path) -> None:
    """Refuse weights that lack tensors of their class: the library has filled those at random.

    Args:
        loading: what ``from_pretrained(..., output_loading_info=True)`` returns beside the model.
        folder: of the weights.

    Raises:
        ModelError: some are missing, or have another shape.
    """
    missing = sorted(str(name) for name in (*loading["missing_keys"], *loading["mismatched_keys"]))
    if missing:
        what = f"these weights lack {len(missing)} tensors that their configuration asks for, such as {missing[0]}"
        raise ModelError(what, where=str(folder), hint="Fetch the whole model again, or name another one.")
