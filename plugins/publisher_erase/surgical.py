"""Surgical erasing: the guidance of a concept becomes that of its alternative, and the empty prompt stays as it was.

Source: S. Hong, J. Lee, S. S. Woo, "All but One: Surgical Concept Erasing with Model Preservation in Text-to-Image
Diffusion Models", AAAI 2024, arXiv 2312.12807. There is no code, and this is our reconstruction from what its abstract
and its first figure say: the update is on the term of classifier-free guidance, towards an alternative that the user
names, and the drift of the unconditional prediction is bounded. Weights, rates and trajectories are ours. No figure of
the paper may be expected of it, nor the other way round.

Guidance generates with ``eps(x, 0) + w g(x, c)``. Index 0 is the frozen model, t the trained one:

    g(x, c) = eps(x, c) - eps(x, 0)                                                             (guidance term)
    L_g = E | g_t(x, c) - g_0(x, a) |^2                                                         (surgical)
    L_u = E | eps_t(x, 0) - eps_0(x, 0) |^2                                                     (drift)
    L_k = E | eps_t(x, k) - eps_0(x, k) |^2                                                     (kept)
    L_e = E | eps_t(x', 0) - eps_0(x', 0) |^2,      x' of a kept prompt's trajectory              (kept, empty)
    L   = L_g + lam_u L_u + lam_k L_k + lam_e L_e                                               (objective)

At the minimum of L_g and L_u, ``eps_t(x, c) = eps_0(x, a)``: c then gives the frozen model's image of a from the same
noise, at every guidance scale. So the trained model's own trajectory of c is the frozen one's of a: x is drawn once,
from the frozen model, before the training. The published loops sample from the trained model at each step.

    paper             code          shape           meaning
    eps_t(x, c)       text          (B, c, h, w)    prediction of the trained model, for the concept's prompt
    eps_t(x, 0)       empty         (B, c, h, w)    the same for the empty prompt
    eps_0(x, a)       goal_text     (B, c, h, w)    frozen prediction for the alternative
    eps_0(x, 0)       goal_empty    (B, c, h, w)    frozen prediction for the empty prompt
    (ours)            lam_u         scalar          ``lam_uncond``
    (ours)            lam_k, lam_e  scalar          ``lam_keep``, ``lam_keep_empty``

Deviations and additions:
    - Velocity takes the place of noise where the model predicts it; the terms are the same.
    - L_k and L_e are not in the paper. Without L_k neighbours of the concept are lost, whatever lam_u is.
    - The gradient runs through both parts of ``g_t``; the paper does not say.
    - Half of the trajectories are the alternative's, half the concept's: the first are where the trained model goes.
"""

from __future__ import annotations

from torch import Tensor


def mean_square(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean square of a difference, a scalar: (drift), (kept) and (kept, empty)."""
    return (predicted - wanted).square().mean()


def guidance_term(text: Tensor, empty: Tensor) -> Tensor:
    """Return g of (guidance term), ``(B, c, h, w)``."""
    return text - empty


def surgical_loss(text: Tensor, empty: Tensor, goal_text: Tensor, goal_empty: Tensor) -> Tensor:
    """Return L_g of (surgical), a scalar.

    Args:
        text: trained predictions for the concept's prompts, ``(B, c, h, w)``.
        empty: trained predictions for the empty prompt.
        goal_text: frozen predictions for the alternatives.
        goal_empty: frozen predictions for the empty prompt.
    """
    return mean_square(guidance_term(text, empty), guidance_term(goal_text, goal_empty))
