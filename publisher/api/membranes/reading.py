"""Membrane files to membranes: the authors', ours, any kohya LoRA of a UNet alone, or one of a transformer."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api.membranes.kohya_flux import split
from publisher.api.membranes.names import ADAPTER, PARTS, is_stem, kohya_parts, read_adapter, stem_in
from publisher.api.membranes.parts import PREFIX, TRANSFORMER, Branch, Membrane, MembraneFileError
from publisher.program import command

if TYPE_CHECKING:
    from torch import Tensor

_OWN = ("alpha", "prompts", "prompts_json", "rank")
_OF_DIFFUSERS = (ADAPTER, "format")
_DTYPES = ("torch.float64", "torch.float32", "torch.float16", "torch.bfloat16")


def read_membrane(path: Path) -> Membrane:
    """Read a membrane file: the authors', ours, or any LoRA of a denoiser without text encoder parts.

    Of a U-Net it has kohya's names, of a transformer those of diffusers; of FLUX.1 it may have kohya's.

    Raises:
        MembraneFileError: not there, not safetensors, keys or shapes that are none of a membrane's, NaN or infinity.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MembraneFileError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return parse_membrane_bytes(data, str(path))


def parse_membrane_bytes(data: bytes, where: str) -> Membrane:
    """Return the same from a file's content; ``where`` names it in errors.

    Raises:
        MembraneFileError: see :func:`read_membrane`.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise MembraneFileError(f"cannot be read as safetensors: {error}", where=where) from error
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})  # the library has checked it
    return parse_membrane(tensors, metadata, where)


def parse_membrane(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> Membrane:
    """Return the content of a membrane file.

    Args:
        tensors: of the file.
        metadata: of the file.
        where: what to call the file in errors.

    Raises:
        MembraneFileError: see :func:`read_membrane`.
    """
    own: tuple[str, ...] = _OWN
    if any(name.startswith(TRANSFORMER) for name in tensors):
        tensors, own = _with_alphas(kohya_parts(tensors), metadata, where), (*_OWN, *_OF_DIFFUSERS)
    stems = sorted({stem_in(name) for name in tensors})
    if not stems:
        raise MembraneFileError("holds no tensor", where=where)
    wanted = {f"{stem}.{part}" for stem in stems for part in PARTS}
    odd = sorted(name for name in tensors if not is_stem(stem_in(name))) or sorted(set(tensors) ^ wanted)
    if odd:
        raise MembraneFileError(
            f"is no membrane: {odd[0]!r} is {'none of its tensors' if odd[0] in tensors else 'missing'}",
            where=where,
            hint=_why_none(set(tensors)),
        )
    branches = split({stem: _branch(tensors, stem, where) for stem in stems})
    prompts = _prompts(metadata, where)
    return Membrane(branches, prompts, {key: value for key, value in sorted(metadata.items()) if key not in own})


def _with_alphas(tensors: Mapping[str, Tensor], metadata: Mapping[str, str], where: str) -> dict[str, Tensor]:
    """Return a transformer's tensors with an alpha for each factor: of the file, of its metadata, or its rank."""
    import torch

    said = read_adapter(metadata.get(ADAPTER, "{}"), where).get("lora_alpha")
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith(".lora_down.weight"):
            value = float(tensor.shape[0] if said is None else said)
            found.setdefault(name.removesuffix("lora_down.weight") + "alpha", torch.tensor(value))
    return found


def _why_none(names: set[str]) -> str:
    if any(name.startswith(("lora_te", "text_encoder")) for name in names):
        return "It changes the text encoder too; a membrane is of the UNet alone."
    if any(".lora_A." in name for name in names):
        return f"It has the keys of diffusers; make it a membrane file with: {command('membranes convert')}"
    return f"Each layer needs {PREFIX}*.lora_down.weight, .lora_up.weight and .alpha."


def _branch(tensors: Mapping[str, Tensor], stem: str, where: str) -> Branch:
    down, up = tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"]
    alpha = tensors[f"{stem}.alpha"]
    conv = down.ndim == 4
    odd = [str(tensor.dtype) for tensor in (down, up, alpha) if str(tensor.dtype) not in _DTYPES]
    if odd:
        raise MembraneFileError(f"{stem}: is stored as {odd[0]}, which a membrane does not use", where=where)
    if down.ndim != up.ndim or down.ndim not in (2, 4) or down.shape[0] != up.shape[1] or not down.numel() * up.numel():
        raise MembraneFileError(
            f"{stem}: factors {tuple(up.shape)} and {tuple(down.shape)} do not go together", where=where
        )
    if conv and (down.shape[2:] != (1, 1) or up.shape[2:] != (1, 1)):
        raise MembraneFileError(f"{stem}: a convolution of {tuple(down.shape[2:])}, only 1x1 is supported", where=where)
    if not (down.isfinite().all() and up.isfinite().all() and alpha.numel() == 1 and alpha.isfinite().all()):
        raise MembraneFileError(f"{stem}: NaN, infinity, or an alpha that is no number", where=where)
    rank = down.shape[0]
    value = float(alpha) or float(rank)  # 0 means the rank, as the authors' code has it
    return Branch(down.reshape(rank, -1), up.reshape(-1, rank), value, conv)


def _prompts(metadata: Mapping[str, str], where: str) -> tuple[str, ...]:
    if "prompts_json" not in metadata:  # the authors' own: joined by commas, nothing escaped
        return tuple(part.strip() for part in metadata.get("prompts", "").split(",") if part.strip())
    try:
        found = json.loads(metadata["prompts_json"])
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise MembraneFileError("its metadata prompts_json is no list of texts", where=where)
    return tuple(found)
