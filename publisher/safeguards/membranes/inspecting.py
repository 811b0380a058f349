"""What a membrane file is, in numbers: size, strength, where it changes the model and by how much."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.api.header import read_header
from publisher.api.membranes import TRANSFORMER, Branch, Host, Membrane, find_hosts, misfits, sizes_of
from publisher.model.folder import ModelFolder
from publisher.safeguards.membranes.lora import Portion

if TYPE_CHECKING:
    from torch import Tensor

SMALL_SCALE = 0.25
"""Least alpha / rank of a membrane that was not trained against its own scale; 1 is the authors'."""
KINDS = ("attn1", "attn2", "ff", "proj")
"""Kinds of layers of a U-Net; of a transformer they are whatever stands behind a block's number."""
_KIND = re.compile(r"_(attn1|attn2|ff|proj)_")
_PART = re.compile(r"\.\d+\.([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Description:
    """One membrane file."""

    portion: Portion
    bytes: int
    layers: int
    dtypes: tuple[str, ...]
    scales: tuple[float, ...]
    """Every alpha / rank that its layers have, ascending."""
    changes: Mapping[str, float]
    """Kind of layer -> norm of the change of its weights at permeability 1."""
    relative: Mapping[str, float] | None = None
    """The same over the norm of those weights in the model; None: no model, or one that it does not fit."""
    misfits: Sequence[str] | None = None
    """Reasons why it does not fit the model; None: no model was given."""
    same_base: bool | None = None
    """Whether it was trained on exactly these weights; None: no model was given, or the file does not say."""

    @property
    def warnings(self) -> list[str]:
        """What its user should know."""
        found = []
        if min(self.scales) < SMALL_SCALE:
            found.append(
                f"alpha / rank is only {min(self.scales):g}: the membrane works at that part of its factors' strength"
            )
        if not self.portion.membrane.prompts:
            found.append("names no prompts: it cannot open by the prompt")
        return found


def describe(portion: Portion, model: ModelFolder | None = None) -> Description:
    """Describe a membrane file in numbers.

    Args:
        portion: the file, read.
        model: to compare it with; its weights are read one by one.
    """
    membrane = portion.membrane
    changes = _by_kind({stem: _change_norm(branch) for stem, branch in membrane.branches.items()})
    problems = relative = None
    if model is not None:
        hosts = find_hosts(model)
        problems = misfits(sizes_of(membrane), hosts)
        relative = _relative(membrane, changes, hosts, model) if not problems else None
    trained_on = membrane.metadata.get("base_model")
    header = read_header(portion.path)
    return Description(
        portion=portion,
        bytes=portion.path.stat().st_size,
        layers=len(membrane.branches),
        dtypes=tuple(sorted({info.dtype for info in header.values()})),
        scales=tuple(sorted({branch.scale for branch in membrane.branches.values()})),
        changes=changes,
        relative=relative,
        misfits=problems,
        same_base=trained_on == model.digest if model is not None and trained_on else None,
    )


def _change_norm(branch: Branch) -> float:
    """Return the Frobenius norm of s up down, from the factors' Gram matrices: no matrix of the host's size is made."""
    up, down = branch.up.double(), branch.down.double()
    square = float(((up.T @ up) * (down @ down.T)).sum())
    return abs(branch.scale) * math.sqrt(max(square, 0.0))


def _by_kind(norms: Mapping[str, float]) -> dict[str, float]:
    squares = {} if any(stem.startswith(TRANSFORMER) for stem in norms) else dict.fromkeys(KINDS, 0.0)
    for stem, norm in norms.items():
        found = (_PART if stem.startswith(TRANSFORMER) else _KIND).search(stem)
        if found:
            squares[found[1]] = squares.get(found[1], 0.0) + norm**2
    return {kind: square**0.5 for kind, square in squares.items()}


def _relative(
    membrane: Membrane, changes: Mapping[str, float], hosts: Mapping[str, Host], model: ModelFolder
) -> dict[str, float]:
    from safetensors import safe_open

    infos = model.tensors(model.anatomy.denoiser)
    norms = {}
    for stem in membrane.branches:
        key = f"{hosts[stem].module}.weight"
        with safe_open(model.files[infos[key].file], framework="pt") as file:
            weight: Tensor = file.get_tensor(key)
        norms[stem] = float(weight.double().norm())
    weights = _by_kind(norms)
    return {kind: change / weights[kind] if weights[kind] else 0.0 for kind, change in changes.items()}
