"""Robust erasing: the whole denoiser is trained while attackers look for text states that bring the concept back.

Source: our own combination. Kin are STEREO (arXiv 2408.16807), AdvUnlearn (2405.15234), RACE (2405.16341) and Receler
(2311.17717), which search by gradient, and RECE (2407.12383), whose search is the closed form below. None of their
figures belongs to it, and its figures to none of them.

The objective is that of ``surgical.py``, and beside it, on noisy images z_t of the concept, drawn by the frozen model:

    e  <- argmin_e  E | eps_t(z_t, t, e) - noise |^2                                           (inner attack)
    c' =  (rho I + sum_l W_l' W_l)^-1 (sum_l W_l' W0_l) c                                      (derived rows)
    L_a = E | eps_t(z_t, t, e) - eps_0(z_t, t, a) |^2,      e from the attackers               (adversarial)
    L_i = E | eps_t(z_t, t, 0) - eps_0(z_t, t, a) |^2                                          (image)
    L   = L_g + lam_u L_u + lam_k L_k + lam_e L_e + lam_a L_a + lam_i L_i                      (objective)

Whatever the vector: on a picture of the concept the model does what the frozen one does for the alternative. At low
noise that is what any model must do with the picture, so editing is not damaged; at high noise it turns the picture
into the alternative. (inner attack) is concept inversion, or textual inversion; (derived rows) is RECE's equation 8.

    symbol         code        shape           meaning
    eps_t(z, e)    predicted   (B, c, h, w)    prediction of the trained model for an attacker's states
    noise          target      (B, c, h, w)    what the model was trained to say of z_t: noise, or velocity
    W_l            weights[l]  (o_l, d)        keys and values of the trained model
    W0_l           base[l]     (o_l, d)        the same of the frozen model
    c, c'          states      (B, n, d)       rows of the concept's prompts, and what is derived from them
    rho            rho         scalar          pull of the derived rows towards 0
    lam_a, lam_i               scalar          ``lam_adversarial``, ``lam_image``

Precision: the closed form in float64, the rest in the working dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def inner_losses(predicted: Tensor, target: Tensor, attacks: int) -> Tensor:
    """Return the loss of (inner attack) of each attack, ``(attacks,)``.

    Args:
        predicted: ``(attacks * B, c, h, w)``: B rows of the first attack, then of the second, and so on.
        target: what the model was trained to say there.
        attacks: number of attacks that run side by side. Their sum has for each the gradient of its own loss.
    """
    return (predicted - target).square().reshape(attacks, -1).mean(1)


def derived_rows(states: Tensor, weights: Sequence[Tensor], base: Sequence[Tensor], rho: float) -> Tensor:
    """Return c' of (derived rows), in the dtype of ``states``: ``(B, n, d)`` to ``(B, n, d)``.

    Args:
        states: rows that the frozen model reads as the concept.
        weights: keys and values of the trained model, ``(o_l, d)``.
        base: the same of the frozen model, in the same order.
        rho: pull towards 0, above 0: the system is then positive definite.

    Raises:
        ValueError: rho is not above 0.
    """
    if not rho > 0:
        raise ValueError(f"rho must be above 0; got {rho}")
    width = states.shape[-1]
    gram = rho * torch.eye(width, dtype=torch.float64, device=states.device)
    cross = torch.zeros_like(gram)
    for ours, theirs in zip(weights, base, strict=True):
        gram += ours.double().T @ ours.double()
        cross += ours.double().T @ theirs.double()
    moved: Tensor = torch.cholesky_solve(cross, torch.linalg.cholesky(gram))
    return (states.double() @ moved.T).to(states)
