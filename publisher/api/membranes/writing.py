"""Membranes to files: equal membranes give equal bytes.

The authors' code and diffusers read a U-Net's, in kohya's names; diffusers and its kin read a transformer's.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.api.artifacts import safetensors_bytes
from publisher.api.membranes.names import ADAPTER, FACTORS, peft_name
from publisher.api.membranes.parts import TRANSFORMER, Membrane
from publisher.api.membranes.sums import bundled

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
    """Return a membrane file. Equal membranes give equal bytes.

    A U-Net's has kohya's names; the authors' code and diffusers read it. A transformer's has those of diffusers, and
    says its strength in ``lora_adapter_metadata``.

    The metadata has the authors' three keys, ``prompts`` with commas in a prompt replaced by spaces; ``prompts_json``
    says them exactly.
    """
    if not of_transformer(membrane):
        return safetensors_bytes(membrane_tensors(membrane, dtype), membrane_metadata(membrane))
    even = _even(membrane)
    tensors = membrane_tensors(even, dtype)
    named = {
        peft_name(stem, factor): tensors[f"{stem}.{part}"] for stem in even.branches for factor, part in FACTORS.items()
    }
    return safetensors_bytes(named, {**membrane_metadata(even), ADAPTER: _adapter(even), "format": "pt"})


def of_transformer(membrane: Membrane) -> bool:
    """Tell whether a membrane is of a diffusion transformer and not of a U-Net."""
    return next(iter(membrane.branches)).startswith(TRANSFORMER)


def _even(membrane: Membrane) -> Membrane:
    """Return the same with one rank and one alpha for all layers, as peft wants it."""
    if len({(branch.rank, branch.alpha) for branch in membrane.branches.values()}) == 1:
        return membrane
    return replace(bundled([(1.0, membrane)]), metadata=membrane.metadata)


def _adapter(membrane: Membrane) -> str:
    """Return what peft has to know of an even membrane, as JSON."""
    branch = next(iter(membrane.branches.values()))
    layers = [stem.removeprefix(TRANSFORMER) for stem in membrane.branches]
    said = {"r": branch.rank, "lora_alpha": branch.alpha, "target_modules": layers}
    return json.dumps({f"{TRANSFORMER}{key}": value for key, value in said.items()}, sort_keys=True)


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
