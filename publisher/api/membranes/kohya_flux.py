"""kohya's names of FLUX.1: those of its first code, where queries, keys and values are one layer.

    lora_unet_double_blocks_N_img_attn_qkv    transformer_blocks.N.attn.to_q, .to_k, .to_v
    lora_unet_double_blocks_N_txt_attn_qkv    transformer_blocks.N.attn.add_q_proj, .add_k_proj, .add_v_proj
    lora_unet_single_blocks_N_linear1         single_transformer_blocks.N.attn.to_q, .to_k, .to_v, .proj_mlp

and so on, one layer for one. Reading splits the rows of ``up`` and repeats ``down``; ranks that a part does not use are
dropped. Writing puts the parts one below the other in ``down``, and as blocks on the diagonal of ``up``:

    up_fused down_fused = [up_q down_q; up_k down_k; up_v down_v]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from publisher.api.membranes.parts import PREFIX, TRANSFORMER, Branch, Host, Membrane, MembraneFileError

if TYPE_CHECKING:
    from torch import Tensor

_DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn_proj": ("attn.to_out.0",),
    "txt_attn_proj": ("attn.to_add_out",),
    "img_mlp_0": ("ff.net.0.proj",),
    "img_mlp_2": ("ff.net.2",),
    "txt_mlp_0": ("ff_context.net.0.proj",),
    "txt_mlp_2": ("ff_context.net.2",),
    "img_mod_lin": ("norm1.linear",),
    "txt_mod_lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation_lin": ("norm.linear",),
}
_KINDS = {
    "double": ("transformer_blocks", _DOUBLE),
    "single": ("single_transformer_blocks", _SINGLE),
}
_FUSED = re.compile(rf"{PREFIX}(?P<kind>double|single)_blocks_(?P<number>\d+)_(?P<layer>\w+)")
_OWN = re.compile(rf"{re.escape(TRANSFORMER)}(?P<single>single_)?transformer_blocks\.(?P<number>\d+)\.(?P<layer>.+)")


def is_fused(stem: str) -> bool:
    """Tell whether a stem is one of kohya's for FLUX.1."""
    found = _FUSED.fullmatch(stem)
    return found is not None and found["layer"] in _KINDS[found["kind"]][1]


def shares(stem: str, out_width: int, in_width: int) -> Iterator[tuple[str, slice]]:
    """Return which rows of a fused layer belong to which layer of diffusers.

    Args:
        stem: for which :func:`is_fused` holds.
        out_width: rows of ``up``.
        in_width: columns of ``down``; queries, keys and values of a single block are as many.

    Yields:
        Stem of the layer, and its rows.
    """
    found = _FUSED.fullmatch(stem)
    assert found is not None  # noqa: S101 - the caller has asked
    blocks, layers = _KINDS[found["kind"]]
    parts = layers[found["layer"]]
    equal = in_width if len(parts) == 4 else out_width // len(parts)
    for i, layer in enumerate(parts):
        stop = out_width if i == len(parts) - 1 else (i + 1) * equal
        yield f"{TRANSFORMER}{blocks}.{found['number']}.{layer}", slice(i * equal, stop)


def split(branches: Mapping[str, Branch]) -> dict[str, Branch]:
    """Return branches of kohya's fused layers as those of diffusers' layers, sorted; others as they are."""
    found = {}
    for stem, branch in branches.items():
        if not is_fused(stem):
            found[stem] = branch
            continue
        for name, rows in shares(stem, branch.up.shape[0], branch.down.shape[1]):
            up = branch.up[rows]
            used = up.ne(0).any(dim=0)
            if used.any():
                rank = int(used.sum())
                found[name] = Branch(branch.down[used], up[:, used].contiguous(), branch.scale * rank)
    return dict(sorted(found.items()))


def fused(membrane: Membrane, hosts: Mapping[str, Host]) -> Membrane:
    """Return a membrane of FLUX.1 with kohya's stems; the change of every weight is the same.

    Args:
        membrane: of diffusers' stems.
        hosts: of the model; may be empty where the membrane has a branch on every part of a fused layer.

    Raises:
        MembraneFileError: it is of another family, or the size of a missing part is not known.
    """
    if not any(stem.startswith(f"{TRANSFORMER}single_") for stem in membrane.branches):
        raise MembraneFileError(
            "kohya's names that diffusers reads are those of U-Nets and of FLUX.1, and this membrane is of neither",
            hint="Keep the names of diffusers: --to diffusers",
        )
    groups: dict[str, list[str]] = {}
    for stem in membrane.branches:
        name, parts = _group(stem)
        groups[name] = parts
    branches = {name: _joined([_part(membrane, stem, hosts) for stem in parts]) for name, parts in groups.items()}
    return replace(membrane, branches=dict(sorted(branches.items())))


def _group(stem: str) -> tuple[str, list[str]]:
    """Return kohya's stem of a layer, and all stems that are one there."""
    found = _OWN.fullmatch(stem)
    for kind, (blocks, layers) in _KINDS.items():
        for name, parts in layers.items():
            if found and bool(found["single"]) == (kind == "single") and found["layer"] in parts:
                place = f"{TRANSFORMER}{blocks}.{found['number']}."
                return f"{PREFIX}{kind}_blocks_{found['number']}_{name}", [place + part for part in parts]
    raise MembraneFileError(f"{stem}: FLUX.1 has no such layer")


def _part(membrane: Membrane, stem: str, hosts: Mapping[str, Host]) -> Branch | int:
    """Return the branch of a part, or its number of rows where it has none."""
    if stem in membrane.branches:
        return membrane.branches[stem]
    if stem not in hosts:
        raise MembraneFileError(f"{stem} has no branch, and kohya's layer has it inside", hint="Give --model.")
    return hosts[stem].shape[0]


def _joined(parts: Sequence[Branch | int]) -> Branch:
    """Return one branch of parts one below the other; alpha is its rank."""
    import torch

    there = [part for part in parts if isinstance(part, Branch)]
    if len(parts) == 1:
        return there[0]
    ups: list[Tensor] = []
    alike = len(there) == len(parts) and all(torch.equal(part.down, there[0].down) for part in there)
    width = there[0].rank if alike else sum(part.rank for part in there)
    start = 0
    for part in parts:
        if isinstance(part, int):
            ups.append(there[0].up.new_zeros(part, width))
            continue
        up = part.up.new_zeros(part.up.shape[0], width)
        up[:, start : start + part.rank] = part.up * part.scale
        ups.append(up)
        start += 0 if alike else part.rank
    down = there[0].down if alike else torch.cat([part.down for part in there])
    return Branch(down, torch.cat(ups), float(width))
