"""Sums of membranes: as a change of weights, and as one LoRA of fixed strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from publisher.api.membranes.parts import Branch, Membrane, MembraneFileError

if TYPE_CHECKING:
    from torch import Tensor


def weight_change(branches: Sequence[tuple[float, Branch]], shape: Sequence[int]) -> Tensor:
    """Return ``sum_c gamma_c s_c up_c down_c``, exactly: no cross terms between membranes.

    Args:
        branches: permeability and branch of every membrane on one host.
        shape: of the host's weight, ``(m, n)`` or ``(m, n, 1, 1)``.

    Returns:
        float64, of that shape.
    """
    import torch

    change = torch.zeros(tuple(shape[:2]), dtype=torch.float64)
    for gamma, branch in branches:
        change.addmm_(branch.up.double(), branch.down.double(), alpha=gamma * branch.scale)
    return change.reshape(tuple(shape))


def bundled(membranes: Sequence[tuple[float, Membrane]]) -> Membrane:
    """Return several membranes as one LoRA of fixed strength: factors side by side, rank and alpha the sum of ranks.

    Its change of every weight is the exact sum of theirs. A loader that knows one permeability a file (the authors')
    opens all of them together; plain diffusers users get the fixed strengths.

    Args:
        membranes: each with its permeability.

    Raises:
        MembraneFileError: none given, or made for different kinds of layers.
    """
    import torch

    if not membranes:
        raise MembraneFileError("there is no membrane to bundle")
    stems = sorted({stem for _, membrane in membranes for stem in membrane.branches})
    width = sum(membrane.rank for _, membrane in membranes)
    branches = {}
    for stem in stems:
        parts = [(gamma, membrane.branches[stem]) for gamma, membrane in membranes if stem in membrane.branches]
        if len({(part.conv, part.up.shape[0], part.down.shape[1]) for _, part in parts}) > 1:
            raise MembraneFileError(f"{stem}: the membranes were made for different models")
        down = torch.cat([part.down.float() for _, part in parts])
        up = torch.cat([part.up.float() * (gamma * part.scale) for gamma, part in parts], dim=1)
        lacking = width - down.shape[0]  # peft wants one rank and one alpha for all layers
        down = torch.cat([down, down.new_zeros(lacking, down.shape[1])])
        up = torch.cat([up, up.new_zeros(up.shape[0], lacking)], dim=1)
        branches[stem] = Branch(down, up, float(width), parts[0][1].conv)
    prompts = tuple(dict.fromkeys(prompt for _, membrane in membranes for prompt in membrane.prompts))
    return Membrane(branches, prompts)
