"""FreezeAsGuard: the relaxed mask, by the authors' procedure and with a projection in place of its penalty.

Source: "FreezeAsGuard: Mitigating Illegal Adaptation of Diffusion Models via Selective Tensor Freezing"
(arXiv 2405.17472), with the authors' code (12856a8).

    m_i = sigmoid(x_i / T)                                                    relaxed mask; 1 = frozen
    theta_D(m)_i = theta_pre,i + (1 - m_i) (theta_ft,D,i - theta_pre,i)       of each fine-tuning D           (mixed)
    dL_D/dm_i = <theta_pre,i - theta_ft,i , grad_i L_D(theta_D(m))>           one backward for all units      (slope)

``recipe: released``, the authors' procedure, for comparison:

    x_i <- x_i - eta <delta_i, g_i> m_i(1 - m_i)/T - 2 c (mean m - rho) m_i(1 - m_i)/(T N)             (mask step)
    theta_ft <- theta_ft - lr_user (1 - m) grad (L_illegal + L_innocent)/2                             (user step)
    delta = theta_pre - theta_ft,   g = grad (-L_illegal + L_innocent)/2 at theta(m),   x_i ~ U[0, 1),   frozen: m > 1/2

``recipe: refined``, their upper level on shares, along the budget:

    lost_D(m) = (L_D(theta_D(m)) - L_D(theta_ft,D)) / (L_D(theta_pre) - L_D(theta_ft,D))     0 nothing, 1 all of it
    max_m  mean_illegal lost_D - lam mean_innocent lost_D     subject to  sum_i s_i m_i = b               (upper)

    paper    code              shape            meaning
    x        x                 (n,) float64     logits; in (upper) they begin as the scores' ranks, over [0, 1)
    m        m                 (n,)             relaxed mask
    T        t, temperature    scalar           temperature
    rho      rho               scalar           share of the tensors that is frozen
    c        c_sparsity        scalar           weight of the penalty (rho - mean m)^2
    eta      mask_lr           scalar           rate of the data term
    (1)      s, weights        (n,)             what a unit costs
    (1)      b, budget.size    scalar           budget

    (1): not in the paper. The names of the equations are this file's.

What comes of (mask step) is its initialisation: the first steps of the penalty, with c = 5000, saturate most x, and the
data term is smaller by orders.

Deviations from the authors' code:
    - (upper) compares shares, not losses: the side with the larger loss does not decide. The gradient is taken along
      the budget, ``dJ/dm_i - mu s_i`` with mu the mean of ``dJ/dm / s``, and x is then shifted by what bisection says
      meets the budget.
    - In (mask step) x stays float64, and a batch holds both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher_freeze_mask.integrated_gradients import PathScores
from publisher_freeze_mask.mixing import Delta, Loss, MixedNetwork
from publisher_freeze_mask.params import RefineParams, ReleasedParams
from publisher_freeze_mask.units import MaskBudget, Units

LossPair = Callable[[], tuple[Loss, Loss]]
"""Function that samples a batch and returns the mask's loss on it, and the user's."""
WIDEST = 60
"""Number of times that bisection halves an interval: to the last bit of a float64."""


@dataclass(frozen=True)
class MaskSide:
    """One fine-tuning D, as (upper) sees it."""

    delta: Delta
    """theta_ft - theta_pre."""
    path: PathScores
    """Scores, with the losses at both ends."""
    sign: float
    """Weight in (upper): 1 for an illegal one, -lam for an innocent one."""
    losses: Sequence[Loss]
    """L_D on the batches that the scores are of; each step takes the next one."""


@dataclass
class RelaxedMask:
    """A relaxed mask that is being refined."""

    x: Tensor
    """Logits ``(n,)``, float64."""
    adam: torch.optim.Adam
    """Optimizer of the logits."""


def relaxed(x: Tensor, temperature: float) -> Tensor:
    """Return m, ``(n,)``."""
    return torch.sigmoid(x / temperature)


def begin(scores: Tensor, params: RefineParams) -> RelaxedMask:
    """Return a mask with x at the scores' ranks."""
    order = torch.argsort(torch.argsort(scores, stable=True), stable=True)
    x = (order.double() / max(1, len(scores))).requires_grad_()
    return RelaxedMask(x, torch.optim.Adam([x], lr=params.lr, maximize=True, foreach=False))


def project(x: Tensor, weights: Tensor, size: float, temperature: float) -> Tensor:
    """Shift x so that ``sum s_i m_i = b``; unchanged in order.

    Args:
        x: logits ``(n,)``.
        weights: s ``(n,)``.
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


def slope(network: MixedNetwork, units: Units, side: MaskSide, m: Tensor, loss: Loss) -> tuple[float, Tensor]:
    """Return ``L_D(theta_D(m))`` and ``dL_D/dm (n,)`` of (slope); the network is left there."""
    network.put(side.delta, units.shares(1 - m))
    value, slopes = network.slopes(side.delta, loss)
    return value, -units.vector(slopes)


def ascend(
    network: MixedNetwork,
    units: Units,
    sides: tuple[MaskSide, MaskSide],
    budget: MaskBudget,
    mask: RelaxedMask,
    *,
    done: int,
    temperature: float,
) -> tuple[float, float]:
    """Compute the gradient of (upper) along the budget; the network is at theta_pre afterwards.

    Args:
        network: network at theta_pre.
        units: units of the candidates.
        sides: one illegal, one innocent fine-tuning.
        budget: budget of the mask.
        mask: mask, which gets the gradient.
        done: number of steps before this one.
        temperature: T.

    Returns:
        The shares lost, illegal and innocent.
    """
    weights, t = units.weights(budget), temperature
    with torch.no_grad():
        mask.x.copy_(project(mask.x, weights, budget.size, t))
        m = relaxed(mask.x, t)
    rise, lost = torch.zeros_like(m), []
    for side in sides:
        value, gradient = slope(network, units, side, m, side.losses[done % len(side.losses)])
        rise += side.sign * gradient / side.path.gain
        lost.append((value - side.path.after) / side.path.gain)
        network.back()
    width = m * (1 - m) / t
    mu = (rise * width).sum() / (weights * width).sum().clamp(min=1e-300)
    mask.x.grad = (rise - mu * weights) * width
    return lost[0], lost[1]


def move(units: Units, budget: MaskBudget, mask: RelaxedMask, temperature: float) -> None:
    """Take a step of Adam on x, then project it onto the budget."""
    mask.adam.step()
    with torch.no_grad():
        mask.x.copy_(project(mask.x, units.weights(budget), budget.size, temperature))


def penalty_slope(m: Tensor, rho: float, c: float) -> Tensor:
    """Return ``d/dm c (rho - mean m)^2``, ``(n,)``."""
    return 2 * c * (m.mean() - rho) / len(m) * torch.ones_like(m)


def released(
    network: MixedNetwork,
    units: Units,
    delta: Delta,
    sample: LossPair,
    *,
    rho: float,
    params: ReleasedParams,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Run the authors' procedure; the network is at theta_pre before and after.

    Args:
        network: network at theta_pre.
        units: whole tensors.
        delta: ``theta_ft - theta_pre``.
        sample: function that samples a batch.
        rho: share of the tensors.
        params: rates and steps.
        generator: source of x.

    Returns:
        x at the beginning and at the end, ``(n,)``.
    """
    x = torch.rand(len(units), generator=generator, dtype=torch.float64)
    start, t = x.clone(), params.temperature
    user = {name: change.clone() for name, change in delta.items()}
    for done in range(params.steps):
        m = relaxed(x, t)
        network.put(user, units.shares(1 - m))
        upper, lower = sample()
        if done % params.interval == 0:
            _, slopes = network.slopes(user, upper)
            width = m * (1 - m) / t
            x = x + params.mask_lr * units.vector(slopes) * width - penalty_slope(m, rho, params.c_sparsity) * width
        else:
            _descend(network, user, units.shares(1 - m), lower, params.user_lr)
    network.back()
    return start, x


def _descend(network: MixedNetwork, user: dict[str, Tensor], shares: dict[str, Tensor], loss: Loss, lr: float) -> None:
    """Take the (user step): plain SGD of the simulated user."""
    network.network.requires_grad_(requires_grad=False)
    names = sorted(user)
    tensors = [network.parameters[name].requires_grad_() for name in names]
    gradients = torch.autograd.grad(loss(), tensors)
    for name, gradient in zip(names, gradients, strict=True):
        user[name] -= lr * float(shares.get(name, torch.ones(1))) * gradient
    network.network.requires_grad_(requires_grad=False)
