"""The relaxed mask, refined: FreezeAsGuard's upper level with a projection in place of its penalty.

    m_i = sigmoid(x_i / T)                                                   relaxed mask; 1 = frozen
    theta_D(m)_i = theta_pre,i + (1 - m_i) (theta_ft,D,i - theta_pre,i)      of each fine-tuning D
    lost_D(m) = (L_D(theta_D(m)) - L_D(theta_ft,D)) / (L_D(theta_pre) - L_D(theta_ft,D))     0 nothing, 1 all of it
    max_m  mean_illegal lost_D - lam mean_innocent lost_D     subject to  sum_i s_i m_i = b

    dL_D/dm_i = <theta_pre,i - theta_ft,i , grad_i L_D(theta_D(m))>          one backward for all units

    here                    shape
    x      ``x``            (n,) float64, begins as the rank of the scores, evenly over [0, 1)
    s      ``weights``      (n,) what a unit costs
    b      ``budget.size``

Shares are compared, not losses: the side with the larger loss does not decide. The gradient is taken along the budget,
``dJ/dm_i - mu s_i`` with mu the mean of ``dJ/dm / s``, and x is then shifted by what bisection says meets the budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from publisher_freeze_mask.params import RefineParams
from publisher_freeze_mask.path import Path
from publisher_freeze_mask.place import Delta, Loss, Place
from publisher_freeze_mask.units import Budget, Units

WIDEST = 60
"""Bisection halves an interval so often: to the last bit of a float64."""


@dataclass(frozen=True)
class Side:
    """One fine-tuning D."""

    delta: Delta
    path: Path
    sign: float
    """1 illegal, -lam innocent."""
    losses: Sequence[Loss]
    """L_D on the batches that the scores are of; each step takes the next one."""


@dataclass
class Refined:
    """Where it is."""

    x: Tensor
    adam: torch.optim.Adam
    done: int = 0
    lost: list[tuple[float, float]] = field(default_factory=list)
    """Shares lost with the relaxed mask, illegal and innocent, at each step."""


def relaxed(x: Tensor, temperature: float) -> Tensor:
    """m, ``(n,)``."""
    return torch.sigmoid(x / temperature)


def begin(scores: Tensor, params: RefineParams) -> Refined:
    """Put x at the scores' ranks."""
    order = torch.argsort(torch.argsort(scores, stable=True), stable=True)
    x = (order.double() / max(1, len(scores))).requires_grad_()
    return Refined(x, torch.optim.Adam([x], lr=params.lr, maximize=True, foreach=False))


def project(x: Tensor, weights: Tensor, size: float, temperature: float) -> Tensor:
    """Shift x so that ``sum s_i m_i = b``; unchanged in order.

    Args:
        x: ``(n,)``.
        weights: s.
        size: b; beyond what there is everything is frozen.
        temperature: T.
    """
    reach = float(x.abs().max()) + 40 * temperature
    low, high = -reach, reach
    for _ in range(WIDEST):
        middle = (low + high) / 2
        if float((weights * relaxed(x + middle, temperature)).sum()) > size:
            high = middle
        else:
            low = middle
    return x + (low + high) / 2


def slope(place: Place, units: Units, side: Side, m: Tensor, loss: Loss) -> tuple[float, Tensor]:
    """``L_D(theta_D(m))`` and ``dL_D/dm (n,)``; the network is left there."""
    place.put(side.delta, units.shares(1 - m))
    value, slopes = place.slopes(side.delta, loss)
    return value, -units.vector(slopes)


def step(place: Place, units: Units, sides: tuple[Side, Side], budget: Budget, at: Refined, t: float) -> None:
    """One step of Adam on x, then the projection; the network is at theta_pre afterwards.

    Args:
        place: the network.
        units: of the candidates.
        sides: one illegal, one innocent fine-tuning.
        budget: of the mask.
        at: where it is; changed.
        t: temperature T.
    """
    weights = units.weights(budget)
    with torch.no_grad():
        at.x.copy_(project(at.x, weights, budget.size, t))
        m = relaxed(at.x, t)
    rise, lost = torch.zeros_like(m), []
    for side in sides:
        value, gradient = slope(place, units, side, m, side.losses[at.done % len(side.losses)])
        rise += side.sign * gradient / side.path.gain
        lost.append((value - side.path.after) / side.path.gain)
        place.back()
    width = m * (1 - m) / t
    mu = (rise * width).sum() / (weights * width).sum().clamp(min=1e-300)
    at.x.grad = (rise - mu * weights) * width
    at.adam.step()
    at.done += 1
    at.lost.append((lost[0], lost[1]))
    with torch.no_grad():
        at.x.copy_(project(at.x, weights, budget.size, t))
