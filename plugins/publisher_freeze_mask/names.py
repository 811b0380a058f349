"""What can be frozen: the denoiser's tensors as candidates, from headers. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from publisher.api import ModelError, ModelInfo
from publisher.api.freeze_mask import Candidate
from publisher_freeze_mask.params import FreezeMaskParams

HEADS = re.compile(r"\.attn[12]\.to_[qkv]\.(weight|bias)$")
"""Tensors whose first axis is the heads, one after the other."""
CROSS_ATTENTION = re.compile(r"\.attn2\.")


def candidates(params: FreezeMaskParams, model: ModelInfo) -> dict[str, Candidate]:
    """Name -> tensor that may be frozen, and how many of its rows are one unit.

    Raises:
        ModelError: the number of heads does not divide a projection.
    """
    component = model.anatomy.denoiser
    config = model.config(component)
    return {
        name: Candidate(shape=info.shape, rows=_rows(name, info.shape, params, config))
        for name, info in model.tensors(component).items()
        if len(info.shape) > 1 or params.one_d == "include"
    }


def trained(params: FreezeMaskParams, model: ModelInfo) -> list[str]:
    """Tensors that theta_ft may change."""
    names = model.tensors(model.anatomy.denoiser)
    return sorted(name for name in names if params.adapt.kind == "full" or CROSS_ATTENTION.search(name))


def heads(name: str, config: Mapping[str, Any]) -> int:
    """Attention heads of the block that a tensor is in: one number for all blocks, or one for each.

    diffusers calls the number of heads ``attention_head_dim`` in these configurations.
    """
    found = config.get("num_attention_heads") or config.get("attention_head_dim") or 1
    if isinstance(found, int):
        return found
    place = re.match(r"(down|up)_blocks\.(\d+)\.", name)
    if place is None:
        return int(found[-1])
    ordered = found if place[1] == "down" else found[::-1]
    return int(ordered[int(place[2])])


def _rows(name: str, shape: tuple[int, ...], params: FreezeMaskParams, config: Mapping[str, Any]) -> int:
    if params.granularity == "row":
        return 1 if shape else 0
    if params.granularity == "tensor" or not HEADS.search(name):
        return 0
    count = heads(name, config)
    if shape[0] % count:
        raise ModelError(f"{name} has {shape[0]} rows, which {count} heads do not divide", where="unet")
    return shape[0] // count
