"""Signed packages of very small models, as single files are made of them and compared with them."""

from __future__ import annotations

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
from support.tiny_sdxl import save_tiny_sdxl

HELD = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


class Released(NamedTuple):
    """A package and its publisher's key."""

    folder: Path
    key: Path


def release(folder: Path, kind: str, **membranes: Any) -> Released:
    """Write a package that freezes one matrix: of Stable Diffusion 1.x (``sd``) or XL (``xl``).

    Args:
        folder: a new one, of the package and its key.
        kind: of the model.
        membranes: fields of the membranes' index; none given: the package has no membranes.
    """
    base = save_tiny_model(folder / "base") if kind == "sd" else save_tiny_sdxl(folder / "base", second=24)
    tensors = load_file(base / "unet/diffusion_pytorch_model.safetensors")
    artifacts = {FILE: mask_of(tensors, {HELD: ()}).as_file()}
    if membranes:
        configs = read_configs(base)
        model = ModelFolder(base, load_registry().recognise(configs, "")[1], configs)
        artifacts |= released_membranes.artifacts(model, ["skull", "pistol"], **membranes)
    private, public = folder / "a.key", folder / "a.pub"
    keys.generate(private, public, None)
    return Released(write_package(folder / "package", base, private, artifacts), public)
