"""MIMA: weights from which an adaptation to any of several concepts fails.

Source: "Multi-concept Model Immunization through Differentiable Model Merging", AAAI 2025
(arXiv 2412.15320), with the authors' code (b8fa843).

    max_theta  sum_n L(x_n, c_n; Merge({theta'_m}))                                                          (upper)
    theta'_n = argmin L(x_n, c_n; theta)      by k steps from theta, for every concept n                     (lower)

Merge is the closed form of ``merge.py`` for keys and values of cross-attention, and an average for everything else.

(lower) makes no copy. One step of gradient descent on a key or value projection W changes it by

    Delta_n = -lr dY_n^T X_n                                                                              (inner step)

X_n are the texts that the layer reads, dY_n is the gradient at its output. Only these factors are kept:

    Delta_n x   = (x X_n^T) (-lr dY_n)                                                                         (added)
    Delta_n T^T = (-lr dY_n)^T (X_n T^T)                                                     (what the merge asks for)

The gradient of (upper) through the merge  W = W_0 + A P,  A = sum_n (Delta_n T^T) S_n :

    first_order     A is a constant: the gradient is the identity                                 (the authors' code)
    otherwise       the copies theta'_n = W + Delta_n follow W; the anchor W_0 and the inner gradients are constants:
                    dL/dW = (dL/dW_new) P^T T, what the concepts' own tokens say. The value stays W_0 + A P
    inner_order 2   the exact derivative of the value: inner gradients and the anchor follow W

    paper       code         shape      meaning
    theta       theta        as is      weights that will be published (S_u), trained by (upper)
    theta'_n    Adversary    -          copy adapted to concept n, kept as what it differs by
    x_n, c_n    ConceptBatch (N r,...)  images and captions of concept n
    L           losses       (N,r)      mean squared error of the denoiser's prediction, for each row
    Merge       Merge        -          see ``merge.py``, with W_0, T, P, A and S_n
    (1)         x            (N,s,D)    X_n: texts of all inner steps, one below the other
    (1)         dy           (N,s,o)    -lr dY_n of one layer, in the same order

    (1): the paper has no letter for it. The names of the equations are this file's.

Deviations from the authors' code:
    - (upper) is differentiated through the merge; theirs copies the merged weights without gradients.
    - The adaptation is undone before the outer step moves the weights; theirs stays in them.
    - Every concept counts. Theirs keys batches by class prompt, so that concepts with one class are one concept.
    - Deltas are float32 at least: one inner step is below the last bit of a bfloat16 weight.
    - ``normalised`` is not in the paper: at the published rates plain SGD hardly moves keys and values.
"""

from __future__ import annotations

import torch
from torch import Tensor


def inner_step(gradient: Tensor, states: Tensor, lr: float, *, normalised: bool) -> Tensor:
    """Return ``-lr dY_n`` of (inner step), ``(N, r, o)``.

    Args:
        gradient: dY_n ``(N, r, o)``.
        states: X_n ``(N, r, D)``.
        lr: learning rate.
        normalised: the rate is the root mean square of the entries of Delta_n, as with Adam.
    """
    if not normalised:
        return -lr * gradient
    squares = ((gradient @ gradient.mT) * (states @ states.mT)).sum((1, 2))  # |dY^T X|^2
    size = (squares / (gradient.shape[2] * states.shape[2])).clamp(min=1e-30).sqrt()
    return -(lr / size[:, None, None]) * gradient


def added(rows: Tensor, x: Tensor, dy: Tensor) -> Tensor:
    """Return ``Delta_n x`` of (added) for ``rows (N, m, D)``: ``(N, m, o)``."""
    return (rows @ x.mT) @ dy


def delta(x: Tensor, dy: Tensor) -> Tensor:
    """Return Delta_n as a matrix, ``(N, o, D)``."""
    return dy.mT @ x


def follow(a: Tensor, weight: Tensor, rows: Tensor) -> Tensor:
    """Return ``A (o, M)`` as it is, with the gradient of copies that follow W.

    Args:
        a: A.
        weight: W ``(o, D)``, which requires gradients.
        rows: T ``(M, D)``.
    """
    return a + (weight - weight.detach()) @ rows.to(a.dtype).T  # zero, with a gradient


def weighted(scales: list[float], losses: list[Tensor]) -> Tensor:
    """Return the weighted sum of the objective's terms, a scalar."""
    return torch.stack([scale * loss for scale, loss in zip(scales, losses, strict=True)]).sum()
