"""Unified Concept Editing: one closed-form edit of every cross-attention key and value projection.

Source: R. Gandikota, H. Orgad, Y. Belinkov, J. Materzynska, D. Bau, "Unified Concept Editing in Diffusion Models",
WACV 2024, arXiv 2308.14761, with the authors' code of 2023 ("replace") and 2025.

For each projection ``W_old`` the paper minimises over ``W``

    sum_i w_i |W c_i - W_old g_i|^2  +  p sum_j v_j |W r_j - W_old r_j|^2  +  lam |W - W_old|_F^2,        (objective)

weighted here by ``w_i`` and ``v_j`` (all 1 in the paper) and with ``e`` in front of the first sum, as the code has it:

    W = (lam W_old + e sum_i w_i W_old g_i c_i^T + p sum_j v_j W_old r_j r_j^T) A^-1                      (solution)
    A =  lam I + e C^T diag(w) C + p R^T diag(v) R.                                                      (normal matrix)

``W_old`` stands on the left of every term, so the edit is one map of the text embedding for all layers:

    W = W_old T,     T = I + e (G - C)^T diag(w) C A^-1.                                                  (primal)

With fewer rows than dimensions the push-through identity gives the same T from a system as large as the rows:

    T = I + Y^T (Z Z^T + lam I)^-1 Z,   Z = [sqrt(e w) C; sqrt(p v) R],   Y = [sqrt(e w) (G - C); 0].     (dual)

Either way T - I has rank m at most and is returned as the factors of :class:`LowRank`, so that a projection is edited
by ``W + (W U) V`` where that is cheaper than ``W T``.

    paper             code      shape     meaning
    c_i, rows of C    concepts  (m, d)    embeddings to take away, one a token
    g_i, rows of G    targets   (m, d)    what they are to read as
    r_j, rows of R    retain    (r, d)    embeddings to keep
    (1)               w         (m,)      how often a concept row counts
    (1)               v         (r,)      how often a retained row counts
    e                 e         scalar    erase scale
    p                 p         scalar    preserve scale
    lambda            lam       scalar    pull towards the old weights
    W                 weight    (o, d)    one key or value projection

Deviations:
    - One T for all layers instead of one solution a layer: equal in exact arithmetic, and one solve instead of 32.
    - Cholesky in float64 of the normal matrix, and the update as I plus a correction: a float32 inverse, as in the
      authors' code, loses digits that the condition of A (1e5 and more) does not leave.
    - Rows carry weights, so that equal rows (padding) and sets (retained texts) need not be repeated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The rows of one edit, all float64 on one device; see the notation table."""

    concepts: Tensor
    """Embeddings to take away, ``(m, d)``."""
    targets: Tensor
    """Embeddings that they are to read as, ``(m, d)``."""
    w: Tensor
    """Weights of the concept rows, ``(m,)``."""
    retain: Tensor
    """Embeddings to keep, ``(r, d)``."""
    v: Tensor
    """Weights of the retained rows, ``(r,)``."""

    def mean_square(self) -> float:
        """Return the weighted mean of ``|c|^2``: what a relative lambda is relative to."""
        return float((self.concepts.square().sum(1) * self.w).sum() / self.w.sum())


@dataclass(frozen=True)
class LowRank:
    """A map ``I + U V`` of text embeddings, as columns: ``x -> x + U (V x)``."""

    u: Tensor
    """Left factor, ``(d, k)``."""
    v: Tensor
    """Right factor, ``(k, d)``."""

    @classmethod
    def identity(cls, d: int, like: Tensor) -> LowRank:
        """Return the map that changes nothing, in the dtype and on the device of ``like``."""
        return cls(like.new_zeros(d, 0), like.new_zeros(0, d))

    def dense(self) -> Tensor:
        """Return the map as a matrix ``(d, d)``."""
        return torch.eye(self.u.shape[0], dtype=self.u.dtype, device=self.u.device) + self.u @ self.v

    def rows(self, x: Tensor) -> Tensor:
        """Apply the map to every row of ``x``: ``(n, d)`` to ``(n, d)``."""
        return x + (x @ self.v.T) @ self.u.T

    def then(self, after: LowRank) -> LowRank:
        """Return ``(I + U V)(I + U' V')``: what the weights see when ``after`` is found for already edited weights."""
        moved = after.u + self.u @ (self.v @ after.u)
        return LowRank(torch.cat([self.u, moved], 1), torch.cat([self.v, after.v]))

    def factors(self) -> tuple[Tensor, ...]:
        """Return what a weight is multiplied by in turn: ``(U, V)``, or ``(U V,)`` where that is cheaper."""
        d, k = self.u.shape
        return (self.u, self.v) if 2 * k <= d else (self.u @ self.v,)


def normal_matrix(rows: Rows, lam: float, e: float, p: float) -> Tensor:
    """Return ``A (d, d)`` of (normal matrix), symmetric and positive definite for ``lam > 0``."""
    d = rows.concepts.shape[1]
    a = lam * torch.eye(d, dtype=rows.concepts.dtype, device=rows.concepts.device)
    a += e * rows.concepts.T @ (rows.w[:, None] * rows.concepts)
    a += p * rows.retain.T @ (rows.v[:, None] * rows.retain)
    return a


def primal_map(rows: Rows, lam: float, e: float, p: float) -> LowRank:
    """Return T of (primal) from a ``(d, d)`` system: ``U = e (G - C)^T diag(w)``, ``V = C A^-1``."""
    factor = torch.linalg.cholesky(normal_matrix(rows, lam, e, p))
    u = e * (rows.targets - rows.concepts).T * rows.w
    return LowRank(u, torch.cholesky_solve(rows.concepts.T, factor).T)


def dual_map(rows: Rows, lam: float, e: float, p: float) -> LowRank:
    """Return T of (dual) from a ``(m + r, m + r)`` system."""
    scale = (e * rows.w).sqrt()
    z = torch.cat([scale[:, None] * rows.concepts, (p * rows.v).sqrt()[:, None] * rows.retain])
    kernel = z @ z.T + lam * torch.eye(len(z), dtype=z.dtype, device=z.device)
    solved = torch.cholesky_solve(z, torch.linalg.cholesky(kernel))
    return LowRank(scale * (rows.targets - rows.concepts).T, solved[: len(scale)])


def edit_map(rows: Rows, lam: float, e: float = 1.0, p: float = 1.0) -> LowRank:
    """Return T, from the smaller of the two systems.

    Args:
        rows: rows to take away, what they become, and rows to keep.
        lam: pull towards the old weights, above 0 and finite.
        e: erase scale, 0 or above, finite.
        p: preserve scale, 0 or above, finite.

    Raises:
        ValueError: a scale outside its range.
    """
    if not (lam > 0 and e >= 0 and p >= 0 and math.isfinite(lam + e + p)):
        raise ValueError(f"lam must be above 0, e and p 0 or above, all finite; got lam={lam}, e={e}, p={p}")
    few = len(rows.concepts) + len(rows.retain) < rows.concepts.shape[1]
    return dual_map(rows, lam, e, p) if few else primal_map(rows, lam, e, p)


def edit_weight(weight: Tensor, factors: tuple[Tensor, ...]) -> Tensor:
    """Return ``W + W U V`` in the weight's own dtype and on its device.

    The product is made in float32 (float64 for float64 weights): its error is that of rounding, 1e-6 of the largest
    weight, while all that is ill-conditioned has been done in float64.

    Args:
        weight: projection W ``(o, d)``, any float dtype.
        factors: result of :meth:`LowRank.factors`; the product is made on their device.
    """
    work = torch.promote_types(weight.dtype, torch.float32)
    wide = weight.to(factors[0].device, work)
    change = wide
    for factor in factors:
        change = change @ factor.to(work)
    return (wide + change).to(weight.device, weight.dtype)


def edit_writer(weight: Tensor, factors: tuple[Tensor, ...]) -> Tensor:
    """Return ``W + U V W``, of a layer that writes the rows which T maps; as :func:`edit_weight` otherwise.

    Args:
        weight: weight W ``(d, o)`` of the layer, or its bias ``(d,)``: every row y = W x + b becomes T y by both.
        factors: result of :meth:`LowRank.factors`.
    """
    work = torch.promote_types(weight.dtype, torch.float32)
    wide = weight.to(factors[0].device, work)
    change = wide
    for factor in reversed(factors):
        change = factor.to(work) @ change
    return (wide + change).to(weight.device, weight.dtype)
