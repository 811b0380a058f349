"""The authors' procedure, as their code has it: for comparison. FreezeAsGuard (arXiv 2405.17472), its mask learner.

    m_i = sigmoid(x_i / T),  x_i ~ U[0, 1)                                one for each of N tensors
    x_i <- x_i - eta <delta_i, g_i> m_i(1 - m_i)/T - 2 c (mean m - rho) m_i(1 - m_i)/(T N)         mask step
    delta = theta_pre - theta_ft,   g = grad (-L_illegal + L_innocent)/2 at theta(m)
    theta_ft <- theta_ft - lr_user (1 - m) grad (L_illegal + L_innocent)/2                         user step
    frozen where m_i > 1/2

What comes of it is its initialisation: the first steps of the penalty, with c = 5000, saturate most x, and the data
term is smaller by orders. One theta_ft is learned on both sides together.

Deviations: x stays float64. A batch holds both sides.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from publisher_freeze_mask.params import ReleasedParams
from publisher_freeze_mask.place import Delta, Loss, Place
from publisher_freeze_mask.refine import relaxed
from publisher_freeze_mask.units import Units

Losses = Callable[[], tuple[Loss, Loss]]
"""Samples a batch: the mask's loss on it, and the user's."""


def penalty_slope(m: Tensor, rho: float, c: float) -> Tensor:
    """``d/dm c (rho - mean m)^2``, ``(n,)``."""
    return 2 * c * (m.mean() - rho) / len(m) * torch.ones_like(m)


def released(
    place: Place,
    units: Units,
    delta: Delta,
    sample: Losses,
    *,
    rho: float,
    params: ReleasedParams,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Run it; the network is at theta_pre before and after.

    Args:
        place: the network.
        units: whole tensors.
        delta: ``theta_ft - theta_pre``.
        sample: see there.
        rho: share of the tensors.
        params: rates.
        generator: of x.

    Returns:
        x at the beginning and at the end, ``(n,)``.
    """
    x = torch.rand(len(units), generator=generator, dtype=torch.float64)
    start, t = x.clone(), params.temperature
    user = {name: change.clone() for name, change in delta.items()}
    for done in range(params.steps):
        m = relaxed(x, t)
        place.put(user, units.shares(1 - m))
        upper, lower = sample()
        if done % params.interval == 0:
            _, slopes = place.slopes(user, upper)
            width = m * (1 - m) / t
            x = x + params.mask_lr * units.vector(slopes) * width - penalty_slope(m, rho, params.c_sparsity) * width
        else:
            _descend(place, user, units.shares(1 - m), lower, params.user_lr)
    place.back()
    return start, x


def _descend(place: Place, user: dict[str, Tensor], shares: dict[str, Tensor], loss: Loss, lr: float) -> None:
    """The simulated user's SGD."""
    place.network.requires_grad_(requires_grad=False)
    names = sorted(user)
    tensors = [place.parameters[name].requires_grad_() for name in names]
    gradients = torch.autograd.grad(loss(), tensors)
    for name, gradient in zip(names, gradients, strict=True):
        user[name] -= lr * float(shares.get(name, torch.ones(1))) * gradient
    place.network.requires_grad_(requires_grad=False)
