"""A diffusers folder on disk: which of its files make the model, and what is in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from publisher.api import Anatomy, ModelInfo, TensorInfo
from publisher.errors import ModelError
from publisher.model.digest import sha256_file, sha256_list
from publisher.model.header import HeaderError, read_header

MAX_JSON = 16 * 1024 * 1024
ROOT_FILES = ("model_index.json", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "README.md")
TEXT_TYPES = (".json", ".txt", ".model")
VARIANT = re.compile(
    r"\.(fp16|bf16|fp32|non_ema|ema)(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$|\.(fp16|bf16|non_ema)\."
)
WEIGHTED = ("unet", "vae", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "prior", "controlnet")
CONFIGS = ("config.json", "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
QUANTISED = ("quantization_config",)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the model.

    Raises:
        ModelError: not there, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ModelError(f"is larger than {MAX_JSON} bytes", where=str(path))
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError("is not there", where=str(path), hint="Is this a complete diffusers folder?") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ModelError(f"cannot be read as JSON: {error}", where=str(path)) from error
    if not isinstance(data, dict):
        raise ModelError("must hold a JSON object", where=str(path))
    return data


def read_configs(folder: Path) -> dict[str, dict[str, Any]]:
    """``"model_index"`` and each component's name -> its configuration ({} where it has none).

    Raises:
        ModelError: no ``model_index.json``, a component's folder is missing, or custom code.
    """
    if not folder.is_dir():
        raise ModelError("there is no such folder", where=str(folder))
    if not (folder / "model_index.json").is_file():
        raise ModelError(
            "has no model_index.json", where=str(folder), hint="publisher works on diffusers folders, not single files."
        )
    index = read_json(folder / "model_index.json")
    configs: dict[str, dict[str, Any]] = {"model_index": index}
    for name, value in sorted(index.items()):
        if name.startswith("_") or not isinstance(value, list):
            continue
        library, kind = (*value, None, None)[:2]
        if kind is None:
            continue
        if library not in ("diffusers", "transformers", "stable_diffusion") or "/" in name or not name.isidentifier():
            raise ModelError(
                f"component {name!r} is of {library}.{kind}, which is custom code",
                where=str(folder / "model_index.json"),
                hint="Only classes of diffusers and transformers can be released.",
            )
        configs[name] = _config(folder / name)
    return configs


def _config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelError("model_index.json names this component, but its folder is missing", where=str(folder))
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
        """The component's configuration."""
        return self._configs[component]

    @cached_property
    def _headers(self) -> dict[str, dict[str, TensorInfo]]:
        return {component: self._read_headers(component) for component in self.components}

    def tensors(self, component: str) -> Mapping[str, TensorInfo]:
        """Header of every tensor of a component, sorted by name."""
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
    def digests(self) -> dict[str, str]:
        """sha256 of each selected file. Reads every byte once."""
        return {name: sha256_file(path) for name, path in self.files.items()}

    @property
    def digest(self) -> str:
        """One sha256 for the model: over its components' files, not over licence and card."""
        inside = {name: digest for name, digest in self.digests.items() if "/" in name or name == "model_index.json"}
        return sha256_list(inside)

    def _select(self) -> dict[str, Path]:
        chosen = {name: self.path / name for name in ROOT_FILES if (self.path / name).is_file()}
        for component in self.components:
            chosen |= self._select_component(component)
        return dict(sorted(chosen.items()))

    def _select_component(self, component: str) -> dict[str, Path]:
        folder = self.path / component
        if any(key in self._configs[component] for key in QUANTISED):
            raise ModelError(
                "the component is quantised", where=str(folder), hint="Release the unquantised weights, quantise later."
            )
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
        texts = [name for name in names if name.endswith(TEXT_TYPES) and not VARIANT.search(name)]
        weights = [name for name in names if name.endswith(".safetensors") and not VARIANT.search(name)]
        weights = self._shards(folder, weights)
        if not weights and component in WEIGHTED:
            others = [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".safetensors"))]
            raise ModelError(
                "has no plain .safetensors weights" + (f", only {', '.join(others)}" if others else ""),
                where=str(folder),
                hint="Save the pipeline anew with save_pretrained(..., safe_serialization=True), without a variant.",
            )
        return {f"{component}/{name}": folder / name for name in (*texts, *weights)}

    def _shards(self, folder: Path, weights: list[str]) -> list[str]:
        indexes = [path for path in sorted(folder.glob("*.safetensors.index.json")) if not VARIANT.search(path.name)]
        if not indexes:
            if len(weights) > 1:
                raise ModelError(
                    f"holds several weight files ({', '.join(weights)}) and no index that joins them",
                    where=str(folder),
                    hint="Keep the one that belongs to the model.",
                )
            return weights
        named = sorted(set(read_json(indexes[0]).get("weight_map", {}).values()))
        missing = [name for name in named if name not in weights]
        if missing or len(indexes) > 1:
            raise ModelError(f"the index names shards that are not there: {', '.join(missing)}", where=str(folder))
        return named

    def _ignored(self) -> tuple[str, ...]:
        inside = [path for path in self.path.rglob("*") if path.is_file() and not _hidden(path, self.path)]
        names = {path.relative_to(self.path).as_posix() for path in inside}
        heavy = {name for name in names if name.endswith((".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".pkl"))}
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


def _hidden(path: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(root).parts)
