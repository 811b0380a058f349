"""Membranes as LoRA files, in the keys of kohya (a membrane file) and of diffusers, and as one LoRA of fixed strength.

The same numbers go by two kinds of names:

    kohya (the authors', ours)              diffusers and peft
    lora_unet_<path, _ for .>.lora_down.weight   unet.<path>.lora_A.weight
    lora_unet_<path, _ for .>.lora_up.weight     unet.<path>.lora_B.weight
    lora_unet_<path, _ for .>.alpha              the file's lora_adapter_metadata; without it alpha is the rank

Membranes of a transformer have the names of diffusers from the start, with ``transformer.`` for ``unet.``. Those of
FLUX.1 can have kohya's too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from publisher.api.artifacts import safetensors_bytes
from publisher.api.header import HeaderError, read_header
from publisher.api.membranes import (
    ADAPTER,
    FACTORS,
    TRANSFORMER,
    Host,
    Membrane,
    MembraneFileError,
    bundled,
    fused,
    membrane_bytes,
    membrane_metadata,
    membrane_tensors,
    of_transformer,
    parse_membrane,
    read_adapter,
    read_membrane,
    stem_of,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Form = Literal["kohya", "diffusers"]
_KEY = re.compile(
    r"(?:(?P<denoiser>unet|transformer)\.|base_model\.model\.)?(?P<module>[A-Za-z0-9_.]+)\.lora_(?P<factor>[AB])\.weight"
)
_UNET = ("down_blocks.", "mid_block.", "up_blocks.")
"""Beginnings of the paths of a U-Net's layers, where a name does not say which denoiser it is of."""


@dataclass(frozen=True)
class Portion:
    """A membrane and how far it is opened, once and for all."""

    path: Path
    membrane: Membrane
    sha256: str
    """sha256 of the file."""
    gamma: float = 1.0
    """The permeability."""


def read_lora(path: Path) -> Membrane:
    """Read a membrane in either kind of names; of diffusers, what save_lora_weights and save_lora_adapter write.

    Raises:
        MembraneFileError: no LoRA of a UNet alone, or one whose strength peft keeps in ways that a membrane lacks.
    """
    try:
        names = read_header(path)
    except (OSError, HeaderError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MembraneFileError(f"cannot be read as safetensors: {reason}", where=str(path)) from error
    if not any(".lora_A." in name for name in names) or all(name.startswith(TRANSFORMER) for name in names):
        return read_membrane(path)
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in names}
    config = read_adapter(metadata.pop(ADAPTER, "{}"), str(path))
    metadata.pop("format", None)
    return parse_membrane(_as_kohya(tensors, config.get("lora_alpha"), str(path)), metadata, str(path))


def _as_kohya(tensors: Mapping[str, Tensor], alpha: float | None, where: str) -> dict[str, Tensor]:
    import torch

    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        key = _KEY.fullmatch(name)
        if key is None or key["module"].startswith("text_encoder"):
            raise MembraneFileError(
                f"is no LoRA of a UNet alone: it has the tensor {name!r}",
                where=where,
                hint="A membrane changes linear layers and 1x1 convolutions of the UNet, nothing of the text encoder.",
            )
        unet = key["module"].startswith(_UNET)
        stem = stem_of(key["module"], key["denoiser"] or ("unet" if unet else "transformer"))
        found[f"{stem}.{FACTORS[key['factor']]}"] = tensor
        if key["factor"] == "A":
            found[f"{stem}.alpha"] = torch.tensor(float(tensor.shape[0] if alpha is None else alpha))
    return found


def fixed_strength(portions: Sequence[Portion]) -> Membrane:
    """Return all membranes as one ordinary LoRA, alpha its rank, with what their files agree on saying.

    Raises:
        MembraneFileError: none given, or made for different kinds of layers.
    """
    together = bundled([(portion.gamma, portion.membrane) for portion in portions])
    said = [set(portion.membrane.metadata.items()) for portion in portions]
    return replace(together, metadata=dict(sorted(set.intersection(*said))))


def lora_bytes(membrane: Membrane, form: Form, dtype: torch.dtype, hosts: Mapping[str, Host]) -> bytes:
    """Return a LoRA file. Equal membranes give equal bytes.

    Args:
        membrane: with one alpha / rank of 1 for all layers, as :func:`fixed_strength` makes it.
        form: of the keys.
        dtype: of the tensors.
        hosts: of the model that it is for: where diffusers' keys take the modules' paths from. For kohya's they say
            how large layers of FLUX.1 are that have no branch.

    Raises:
        MembraneFileError: a number is too large for the dtype, or kohya has no names for the membrane's layers.
    """
    if form == "kohya" and of_transformer(membrane):
        membrane = fused(membrane, hosts)
    tensors, metadata = membrane_tensors(membrane, dtype), membrane_metadata(membrane)
    if form == "diffusers" and not of_transformer(membrane):
        tensors = {
            f"unet.{hosts[stem].module}.lora_{factor}.weight": tensors[f"{stem}.{kohya}"]
            for stem in membrane.branches
            for factor, kohya in FACTORS.items()
        }
        metadata["format"] = "pt"
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise MembraneFileError(f"{name}: a number is too large for {str(dtype).removeprefix('torch.')}")
    if form == "diffusers" and of_transformer(membrane):
        return membrane_bytes(membrane, dtype)
    return safetensors_bytes(tensors, metadata)
