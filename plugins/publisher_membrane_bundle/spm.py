"""SPM: what a membrane is, and what it is trained on.

Source: M. Lyu et al., "One-dimensional Adapter to Rule Them All: Concepts, Diffusion Models and Erasing Applications",
CVPR 2024, arXiv 2312.16145, with the authors' code.

    y     = W x + sum_c gamma_c s up_c down_c x                                                       (eq. 1 and 9)
    L_era = | eps_M(x_t, c_t) - [eps(x_t, c_s) - eta (eps(x_t, c_p) - eps(x_t, c_s))] |^2             (eq. 4)
    L_anc = E_{c ~ D} | eps_M(x_t, c) - eps(x_t, c) |^2                                                (eq. 7)
    L     = L_era + lambda L_anc                                                                      (eq. 8)

All k membranes of a layer are one matrix product: rows D of all regulators, rows U of all erasing signals.

    h     = gate (x D^T),      y = x W^T + b + h U                                                    (forward)
    dL/dh = gate (dL/dy U^T),  dL/dU = h^T dL/dy,  dL/dD = (dL/dh)^T x,  dL/dx = dL/dy W + dL/dh D     (backward)

    paper       code        shape       meaning
    v_reg       down        (kr,n)      regulators of one layer, D
    v_sig       up          (kr,m)      erasing signals of one layer, U
    gamma       gate        (B,1,kr)    s times the permeability of each row of the batch: here 0 or 1
    (1)         s           scalar      alpha / r
    eps         frozen      (c,h,w)     prediction of the frozen denoiser
    eps_M       opened      (c,h,w)     prediction with the membrane open, gamma = 1
    c_t         target      (n,d)       text to be erased
    c_s         surrogate   (n,d)       text that it is to read as ("neutral"), by default the empty prompt
    c_p         positive    (n,d)       text that is pushed away from, by default c_t
    eta         eta         scalar      how far beyond the surrogate
    lambda      lam         scalar      weight of latent anchoring
    D (eq. 6)   anchors                 the empty prompt with weight w_u, and sampled texts

    (1): the paper has no letter for it; r is the rank. (forward) and (backward) are this file's names.

Norms are means over all numbers, as in the code. D in the paper (eq. 6) is a density over all texts; its code samples
Gaussian noise, see :func:`gaussian_anchor`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Gate = float | Tensor


def regulated(x: Tensor, down: Tensor, gate: Gate) -> Tensor:
    """Return ``h`` of (forward), ``(B, L, kr)``, for ``x (B, L, n)``."""
    return F.linear(x, down).mul_(gate)


def regulated_gradient(dy: Tensor, up: Tensor, gate: Gate, shape: torch.Size) -> Tensor:
    """Return ``dL/dh`` of (backward) in the shape of h, for ``dy (B L, m)``."""
    return (dy @ up.T).view(shape).mul_(gate)


def erasing_goal(surrogate: Tensor, positive: Tensor, eta: float) -> Tensor:
    """Return what the target shall be predicted as (eq. 4, in brackets); all ``(c, h, w)``."""
    return surrogate - eta * (positive - surrogate)


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference over all numbers."""
    return (a - b).square().mean()


def anchoring(opened: Sequence[Tensor], frozen: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return L_anc (eq. 7) as a weighted mean over anchors; the weights sum to 1."""
    terms = [weight * mean_square(a, b) for a, b, weight in zip(opened, frozen, weights, strict=True)]
    return torch.stack(terms).sum()


def gaussian_anchor(target: Tensor, generator: torch.Generator) -> Tensor:
    """Sample one anchor of the target's shape, as the authors' code does.

    z ~ N(0, I) of the target's shape, scaled to length 1 over all numbers, taken with probability 1 - cos(z, c_t),
    then given the length of c_t times U(0.8, 1.2). Samples for each attempt: z, then one uniform number; at the end the
    length.
    """
    length = target.norm().cpu()
    while True:
        z = torch.randn(target.shape, generator=generator)
        z = z / z.norm()
        cosine = (z * target.cpu()).sum() / length
        if torch.rand((), generator=generator) < 1 - cosine:
            return (z * length * torch.empty(()).uniform_(0.8, 1.2, generator=generator)).to(target.device)
