"""Small random problems."""

from __future__ import annotations

import torch
from torch import Tensor

from publisher_erase.uce import LowRank, Rows, edit_weight


def random_rows(m: int, r: int, d: int, seed: int = 0) -> Rows:
    noise = torch.Generator().manual_seed(seed)

    def generate(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=noise, dtype=torch.float64)

    return Rows(generate(m, d), generate(m, d), generate(m).abs() + 0.5, generate(r, d), generate(r).abs() + 0.5)


def random_weights(d: int, seed: int = 1) -> list[Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(o, d, generator=noise, dtype=torch.float64) for o in (5, 8, 13)]


def edited(weights: list[Tensor], edit: LowRank) -> list[Tensor]:
    return [edit_weight(weight, edit.factors()) for weight in weights]


def worst(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Return the largest difference relative to the largest entry, over all layers."""
    pairs = zip(found, wanted, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
