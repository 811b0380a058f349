"""A diffusers folder on disk: which of its files make the model, and what is in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from publisher.api import Anatomy, ModelInfo, TensorInfo
from publisher.api.header import POINTER, PULL, HeaderError, read_header
from publisher.api.model_files import (
    BASE_CARD,
    CARD,
    CARRIED,
    HEAVY,
    INDEX,
    OPTIONAL,
    is_hidden,
    model_parts,
    select_texts,
    select_weights,
    under,
    without,
)
from publisher.errors import ModelError
from publisher.model.digest import Hashed, sha256_list

MAX_JSON = 16 * 1024 * 1024
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
QUANTISED = ("quantization_config",)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of the model.

    Raises:
        ModelError: not there, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ModelError(f"is larger than {MAX_JSON} bytes", where=str(path))
        raw = path.read_bytes()
        if raw.startswith(POINTER):
            raise ModelError("is a Git LFS pointer, not the file", where=str(path), hint=f"To get it, {PULL}.")
        data = json.loads(raw.decode())
    except FileNotFoundError:
        raise ModelError("is not there", where=str(path), hint="Is this a complete diffusers folder?") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"cannot be read as JSON: {error}", where=str(path)) from error
    if not isinstance(data, dict):
        raise ModelError("must hold a JSON object", where=str(path))
    return data


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """Read ``"model_index"`` and each component's name -> its configuration ({} where it has none).

    Raises:
        ModelError: no ``model_index.json``, a component's folder is missing, or custom code.
    """
    if not folder.is_dir():
        raise ModelError("there is no such folder", where=str(folder))
    if not (folder / INDEX).is_file():
        raise ModelError(
            "has no model_index.json", where=str(folder), hint="publisher works on diffusers folders, not single files."
        )
    index = read_json(folder / INDEX)
    with under(str(folder)):
        parts = model_parts(index)
    return {"model_index": index} | {name: _config(folder / name) for name in parts}


def _config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        name = folder.name
        hint = (
            f"Put the folder back. {without(name)}" if name in OPTIONAL else "The model is incomplete: copy it again."
        )
        raise ModelError(f"{INDEX} names this component, but its folder is missing", where=str(folder), hint=hint)
    for name in CONFIGS:
        if (folder / name).is_file():
            return read_json(folder / name)
    return {}


class ModelFolder(ModelInfo):
    """The files that make a model, without variants, EMA copies, pickles and single-file checkpoints.

    What is left out is listed in :attr:`ignored` and never gets into a package: an unedited copy beside the edited
    weights would undo the release.

    Raises:
        ModelError: malformed, incomplete, quantised, or with weights in pickles only.
    """

    def __init__(self, folder: Path, anatomy: Anatomy, configs: dict[str, dict[str, Any]] | None = None) -> None:
        self.path = folder.resolve()
        self._anatomy = anatomy
        self._configs = configs if configs is not None else read_configs(folder)
        self.files = self._select()
        self.ignored = self._ignored()

    @property
    def anatomy(self) -> Anatomy:
        """The parts by name."""
        return self._anatomy

    @cached_property
    def components(self) -> tuple[str, ...]:
        """Folders named in ``model_index.json``, sorted."""
        return tuple(sorted(set(self._configs) - {"model_index"}))

    def config(self, component: str) -> Mapping[str, Any]:
        """Return the component's configuration."""
        return self._configs[component]

    def base_files(self, component: str) -> Path:
        """Return the component's folder."""
        if component not in self.components:
            raise KeyError(component)
        return self.path / component

    @cached_property
    def carried(self) -> tuple[str, ...]:
        """Files by which the folder is a released package, or a part of one; empty for a plain model."""
        return tuple(name for name in CARRIED if (self.path / name).is_file())

    @cached_property
    def _headers(self) -> dict[str, dict[str, TensorInfo]]:
        return {component: self._read_headers(component) for component in self.components}

    def tensors(self, component: str) -> Mapping[str, TensorInfo]:
        """Return the header of every tensor of a component, sorted by name."""
        return self._headers[component]

    @cached_property
    def parameters(self) -> int:
        """Elements of all tensors together."""
        return sum(tensor.parameters for found in self._headers.values() for tensor in found.values())

    @cached_property
    def bytes(self) -> int:
        """Bytes of all selected files."""
        return sum(path.stat().st_size for path in self.files.values())

    @cached_property
    def _hashed(self) -> dict[str, Hashed]:
        return {name: Hashed.of(path) for name, path in self.files.items()}

    @property
    def digests(self) -> dict[str, str]:
        """sha256 of each selected file. Reads every byte once, when it is first asked for."""
        return {name: hashed.digest for name, hashed in self._hashed.items()}

    def untouched(self) -> dict[str, str]:
        """Return path -> sha256 of the files that nothing has written to since they were hashed."""
        return {name: hashed.digest for name, hashed in self._hashed.items() if hashed.holds(self.files[name])}

    @property
    def digest(self) -> str:
        """One sha256 for the model: over its components' files, not over licence and card."""
        inside = {name: digest for name, digest in self.digests.items() if "/" in name or name == "model_index.json"}
        return sha256_list(inside)

    def _select(self) -> dict[str, Path]:
        parts, names = model_parts(self._configs["model_index"]), self._names()
        for component in self.components:
            if any(key in self._configs[component] for key in QUANTISED):
                where = str(self.path / component)
                raise ModelError("the component is quantised", where=where, hint="Release the weights it was made of.")
        with under(str(self.path)):
            chosen = list(select_texts(names, parts))
            for part in parts:
                chosen += select_weights(names, part, parts, lambda name: read_json(self.path / name))
        return dict(sorted((CARD if name == BASE_CARD else name, self.path / name) for name in chosen))

    def _names(self) -> set[str]:
        """Return the files that can be of the model or tell that it is a package: none deeper than its parts."""
        folders = [self.path, *(self.path / component for component in self.components)]
        names = {path.relative_to(self.path).as_posix() for folder in folders for path in folder.iterdir()}
        return {name for name in (*names, *CARRIED) if (self.path / name).is_file()}

    def _ignored(self) -> tuple[str, ...]:
        names = {path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file()}
        heavy = {name for name in names if name.endswith(HEAVY) and not is_hidden(name)}
        return tuple(sorted(heavy - set(self.files)))

    def _read_headers(self, component: str) -> dict[str, TensorInfo]:
        found: dict[str, TensorInfo] = {}
        for name, path in self.files.items():
            if name.startswith(f"{component}/") and name.endswith(".safetensors"):
                try:
                    header = read_header(path, name)
                except HeaderError as error:
                    raise ModelError(f"malformed safetensors: {error}", where=str(path)) from error
                twice = sorted(set(header) & set(found))
                if twice:
                    raise ModelError(f"tensor {twice[0]!r} is in two shards", where=str(path))
                found |= header
        return dict(sorted(found.items()))
