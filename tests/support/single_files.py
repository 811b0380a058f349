"""Signed packages of very small models, as single files are made of them and compared with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

from publisher.api.freeze_mask import FILE
from publisher.model.folder import ModelFolder, read_configs
from publisher.package import keys
from publisher.registry import load_registry
from publisher.testing.tiny import save_tiny_model
from support import released_membranes
from support.auditing import write_package
from support.masks import mask_of
from support.tiny_families import TINY
from support.tiny_sdxl import save_tiny_sdxl

HELD = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
HELD_IN_ONE = "transformer_blocks.0.attn.to_k.weight"
"""What packages of transformers freeze: rows of a tensor that holds queries, keys and values in one file."""


class Released(NamedTuple):
    """A package and its publisher's key."""

    folder: Path
    key: Path


def release(folder: Path, kind: str, **membranes: Any) -> Released:
    """Write a package that freezes one matrix.

    Args:
        folder: a new one, of the package and its key.
        kind: of the model: Stable Diffusion 1.x (``sd``), XL (``xl``), or a family of transformers.
        membranes: fields of the membranes' index; none given: the package has no membranes.
    """
    save: Callable[[Path], Path] = {"sd": save_tiny_model, "xl": lambda to: save_tiny_sdxl(to, second=24), **TINY}[kind]
    base = save(folder / "base")
    denoiser, held = ("unet", HELD) if kind in ("sd", "xl") else ("transformer", HELD_IN_ONE)
    tensors = load_file(base / denoiser / "diffusion_pytorch_model.safetensors")
    held = held if held in tensors else held.replace(".attn.", ".attn1.")
    artifacts = {FILE: mask_of(tensors, {held: ()}, component=denoiser).as_file()}
    if membranes:
        configs = read_configs(base)
        model = ModelFolder(base, load_registry().recognise(configs, "")[1], configs)
        artifacts |= released_membranes.artifacts(model, ["skull", "pistol"], **membranes)
    private, public = folder / "a.key", folder / "a.pub"
    keys.generate(private, public, None)
    return Released(write_package(folder / "package", base, private, artifacts), public)
