"""The published formulas as the authors run them: layer by layer, row by row, in float64. For tests and benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from publisher_erase.uce import Rows


def uce_layer(weight: Tensor, rows: Rows, lam: float, e: float, p: float) -> Tensor:
    """Return ``(lam W + e sum W g c^T + p sum W r r^T)(lam I + e sum c c^T + p sum r r^T)^-1`` of a ``(o, d)`` W."""
    left = lam * weight.clone()
    right = lam * torch.eye(weight.shape[1], dtype=weight.dtype)
    for c, g, w in zip(rows.concepts, rows.targets, rows.w, strict=True):
        left += e * w * torch.outer(weight @ g, c)
        right += e * w * torch.outer(c, c)
    for r, v in zip(rows.retain, rows.v, strict=True):
        left += p * v * torch.outer(weight @ r, r)
        right += p * v * torch.outer(r, r)
    return left @ torch.linalg.inv(right)


def adversarial_row(c: Tensor, edited: Sequence[Tensor], original: Sequence[Tensor], rho: float) -> Tensor:
    """Return ``(rho I + sum W^T W)^-1 (sum W^T Wold) c`` for one row ``(d,)``."""
    left = rho * torch.eye(len(c), dtype=c.dtype)
    right = torch.zeros_like(left)
    for new, old in zip(edited, original, strict=True):
        left += new.T @ new
        right += new.T @ old
    return torch.linalg.inv(left) @ right @ c


def rece_layers(
    weights: Sequence[Tensor], rows: Rows, epochs: int, rho: float, scales: tuple[float, float, float]
) -> list[Tensor]:
    """Edit as UCE does, then in the epochs of RECE, on every layer."""
    edited = [uce_layer(weight, rows, *scales) for weight in weights]
    for _ in range(epochs):
        found = torch.stack([adversarial_row(c, edited, weights, rho) for c in rows.concepts])
        attack = Rows(found, rows.targets, rows.w, rows.retain, rows.v)
        edited = [uce_layer(weight, attack, *scales) for weight in edited]
    return edited
