"""A small network under a mask, a signed package with it, and what somebody may have made of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from publisher.package import build, keys, sign
from publisher.safeguards.freeze_mask.audit.records import Audit
from support.masks import mask_of
from support.packages import CREATED, finish, report_data

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.freeze_mask import Rows

UNET = "unet/diffusion_pytorch_model.safetensors"
TO_K, TO_V = "down.0.attn2.to_k", "down.0.attn2.to_v"
CONV, NORM = "down.0.conv", "down.0.norm"
FROZEN: Mapping[str, Rows] = {f"{TO_K}.weight": (), f"{CONV}.weight": ((0, 16), (32, 40)), f"{NORM}.weight": ()}
K, V, C, N = (f"{layer}.weight" for layer in (TO_K, TO_V, CONV, NORM))
Check = Callable[[Path], Audit]
"""An audit of an upload against the signed package."""
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def network(seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors with the names of a denoiser."""
    random = torch.Generator().manual_seed(seed)
    shapes = {
        f"{TO_K}.weight": (48, 64),
        f"{TO_V}.weight": (48, 64),
        f"{TO_V}.bias": (48,),
        f"{CONV}.weight": (48, 8, 3, 3),
        f"{CONV}.bias": (48,),
        f"{NORM}.weight": (48,),
    }
    return {name: torch.randn(shape, generator=random) * 0.05 for name, shape in shapes.items()}


def save(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def write_pipeline(folder: Path, tensors: Mapping[str, Tensor]) -> Path:
    """Write a pipeline folder with this denoiser."""
    save(folder / UNET, tensors)
    save(folder / "vae/diffusion_pytorch_model.safetensors", {"decoder.weight": torch.ones(4, 4)})
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    (folder / "unet/config.json").write_text('{"_class_name": "UNet2DConditionModel", "sample_size": 16}')
    (folder / "vae/config.json").write_text('{"_class_name": "AutoencoderKL"}')
    return folder


def write_package(folder: Path, base: Path, private: Path, artifacts: Mapping[str, bytes]) -> Path:
    """Write a signed package of a pipeline folder."""
    files = {path.relative_to(base).as_posix(): path for path in base.rglob("*") if path.is_file()}
    build.lay_out(folder, files, artifacts)
    finish(folder, report_data(), views={"index.html": b"<!doctype html>\n"})
    sign.sign(folder, keys.load_private(private), created=CREATED)
    return folder


def write_masked(
    folder: Path, private: Path, tensors: Mapping[str, Tensor], held: Mapping[str, Rows], **changes: Any
) -> Path:
    """Write a signed package of a network and its mask, some of the mask's fields replaced."""
    base = write_pipeline(folder.with_name(f"{folder.name}-base"), tensors)
    mask = mask_of(tensors, held, **changes)
    return write_package(folder, base, private, {"freeze-mask.json": mask.as_file()})


def lora(shape: tuple[int, ...], rank: int, seed: int = 1, size: float = 0.01) -> Tensor:
    """Return the product of two random factors, as a weight's change."""
    random = torch.Generator().manual_seed(seed)
    rest = torch.Size(shape[1:]).numel()
    product = torch.randn(shape[0], rank, generator=random) @ torch.randn(rank, rest, generator=random)
    return (product * size / rank**0.5).reshape(shape)


def merged(tensors: Mapping[str, Tensor], names: tuple[str, ...], rank: int) -> dict[str, Tensor]:
    """Return the network with a LoRA merged into some weights."""
    changed = {name: tensors[name] + lora(tuple(tensors[name].shape), rank) for name in names}
    return {**tensors, **changed}


def trained(**changes: Tensor) -> dict[str, Tensor]:
    """Return a fine-tuning that kept the mask: free tensors, and free rows of the frozen one, moved."""
    tensors = network()
    tensors[V] += 0.01 * torch.randn(48, 64, generator=torch.Generator().manual_seed(9))
    tensors[C][20:30] *= 1.1
    return {**tensors, **changes}


def statuses(found: Audit) -> dict[str, str]:
    """Return what became of each frozen tensor of an upload with one set of weights."""
    (weights,) = found.weights
    return {one.name: one.status for one in weights.frozen}


def reasons(found: Audit) -> dict[str, str]:
    """Return why each file was not examined."""
    return {one.path: one.reason for one in found.unexamined}
