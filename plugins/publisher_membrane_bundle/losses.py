"""What a membrane is trained on (SPM).

Source: M. Lyu et al., "One-dimensional Adapter to Rule Them All: Concepts, Diffusion Models and Erasing Applications",
CVPR 2024, arXiv 2312.16145, with the authors' code.

    L_era = | eps_M(x_t, c_t) - [eps(x_t, c_s) - eta (eps(x_t, c_p) - eps(x_t, c_s))] |^2             (eq. 4)
    L_anc = E_{c ~ D} | eps_M(x_t, c) - eps(x_t, c) |^2                                                (eq. 7)
    L     = L_era + lambda L_anc                                                                      (eq. 8)

    paper       code        shape       meaning
    eps         frozen      (c,h,w)     prediction of the frozen denoiser
    eps_M       opened      (c,h,w)     prediction with the membrane open, gamma = 1
    c_t         target      (n,d)       text to be erased
    c_s         surrogate   (n,d)       text that it is to read as ("neutral"), by default the empty prompt
    c_p         positive    (n,d)       text that is pushed away from, by default c_t
    eta         eta         scalar      how far beyond the surrogate
    lambda      lam         scalar      weight of latent anchoring
    D           anchors                 the empty prompt with weight w_u, and sampled texts

Norms are means over all numbers, as in the code. D in the paper (eq. 6) is a density over all texts; its code samples
Gaussian noise, see :func:`gaussian_anchor`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from publisher.api.diffusion.text import Text


def erasing_goal(surrogate: Tensor, positive: Tensor, eta: float) -> Tensor:
    """What the target shall be predicted as (eq. 4, in brackets); all ``(c, h, w)``."""
    return surrogate - eta * (positive - surrogate)


def mean_square(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference over all numbers."""
    return (a - b).square().mean()


def anchoring(opened: Sequence[Tensor], frozen: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Eq. 7 as a weighted mean over anchors; the weights sum to 1."""
    terms = [weight * mean_square(a, b) for a, b, weight in zip(opened, frozen, weights, strict=True)]
    return torch.stack(terms).sum()


def gaussian_anchor(target: Text, generator: torch.Generator) -> Text:
    """One anchor as the authors' code samples it; states first, then the pooled vector, on its own.

    z ~ N(0, I) of the target's shape, scaled to length 1 over all numbers, taken with probability 1 - cos(z, c_t),
    then given the length of c_t times U(0.8, 1.2). Samples for each attempt: z, then one uniform number; at the end the
    length.
    """
    states = _like(target.states, generator)
    return Text(states, None if target.pooled is None else _like(target.pooled, generator))


def _like(target: Tensor, generator: torch.Generator) -> Tensor:
    length = target.norm().cpu()
    while True:
        z = torch.randn(target.shape, generator=generator)
        z = z / z.norm()
        cosine = (z * target.cpu()).sum() / length
        if torch.rand((), generator=generator) < 1 - cosine:
            return (z * length * torch.empty(()).uniform_(0.8, 1.2, generator=generator)).to(target.device)
