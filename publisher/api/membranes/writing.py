"""Membranes to files: equal membranes give equal bytes; the authors' code and diffusers read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from publisher.api.artifacts import safetensors_bytes
from publisher.api.membranes.parts import Membrane

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def membrane_tensors(membrane: Membrane, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return the tensors of a file, by their kohya names.

    Args:
        membrane: to be written.
        dtype: of all tensors, alpha too; None: that of each factor.
    """
    import torch

    found = {}
    for stem, branch in membrane.branches.items():
        kind = dtype or branch.down.dtype
        tail = (1, 1) if branch.conv else ()
        found[f"{stem}.lora_down.weight"] = branch.down.to(kind).reshape(*branch.down.shape, *tail)
        found[f"{stem}.lora_up.weight"] = branch.up.to(kind).reshape(*branch.up.shape, *tail)
        found[f"{stem}.alpha"] = torch.tensor(branch.alpha, dtype=kind)
    return found


def membrane_bytes(membrane: Membrane, dtype: torch.dtype | None = None) -> bytes:
    """Return a membrane file. Equal membranes give equal bytes; the authors' code and diffusers read it.

    The metadata has the authors' three keys, ``prompts`` with commas in a prompt replaced by spaces; ``prompts_json``
    says them exactly.
    """
    return safetensors_bytes(membrane_tensors(membrane, dtype), membrane_metadata(membrane))


def membrane_metadata(membrane: Membrane) -> dict[str, str]:
    """Return the metadata of a membrane file; :func:`parse_membrane` reads the same prompts from it."""
    plain = ",".join(" ".join(prompt.replace(",", " ").split()) for prompt in membrane.prompts)
    return {
        **membrane.metadata,
        "prompts": plain,
        "prompts_json": json.dumps(list(membrane.prompts), ensure_ascii=True),
        "rank": str(membrane.rank),
        "alpha": str(float(max(branch.alpha for branch in membrane.branches.values()))),
    }
