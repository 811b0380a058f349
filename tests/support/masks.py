"""Freeze masks of a toy denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from publisher.api.freeze_mask import (
    FILE,
    Candidate,
    FreezeMask,
    FrozenTensor,
    Rows,
    Share,
    architecture_sha256,
    count,
    digests,
)

TENSORS = {f"block{i}.weight": torch.full((4, 4), float(i)) for i in range(6)}


def mask_of(
    tensors: Mapping[str, torch.Tensor] = TENSORS, rows: Mapping[str, Rows] | None = None, **changes: Any
) -> FreezeMask:
    """Return a mask that freezes the first two tensors unless told otherwise; everything is a candidate."""
    rows = dict.fromkeys(sorted(tensors)[:2], ()) if rows is None else rows
    candidates = {name: Candidate(shape=tuple(tensor.shape)) for name, tensor in tensors.items()}
    total = sum(tensor.numel() for tensor in tensors.values())
    fields: dict[str, Any] = {
        "component": "unet",
        "model": "0" * 64,
        "architecture": architecture_sha256({name: tuple(tensor.shape) for name, tensor in tensors.items()}),
        "recipe": {},
        "tensors": Share(frozen=len(rows), total=len(tensors)),
        "parameters": Share(frozen=count(rows, candidates), total=total),
        "candidates": candidates,
        "frozen": tuple(
            FrozenTensor(
                name=name, shape=tuple(tensors[name].shape), rows=rows[name], sha256=digests(tensors[name], rows[name])
            )
            for name in sorted(rows)
        ),
    }
    return FreezeMask(**fields | changes)


def write_mask(folder: Path, mask: FreezeMask) -> Path:
    """Write a folder as ``release/`` of a package, with the mask in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(mask.as_file())
    return folder
