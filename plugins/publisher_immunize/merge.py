"""The merging layer: copies that were adapted to one concept each become one set of key and value projections.

Source: MIMA, "Multi-concept Model Immunization through Differentiable Model Merging", AAAI 2025 (arXiv 2412.15320); its
layer is the merge of Custom Diffusion (arXiv 2212.04488, eq. 4):

    min_W |(W - W_0) K^T|^2    so that    W T^T = V^T,   V the rows T_n W_n'^T of every concept                      (1)
    W = W_0 + (V^T - W_0 T^T) (T C^-1 T^T)^-1 T C^-1,                C = K^T K                                       (2)

With W_n' = W_0 + Delta_n, and P = (T C^-1 T^T)^-1 T C^-1, so that P T^T = I, this is

    W = W_0 + A P,        A = sum_n (Delta_n T^T) S_n                                                                (3)

P is the same for all layers and steps; A is all that a layer adds, and is 0 without adaptation. Backwards,
dL/dA = (dL/dW) P^T and dL/dDelta_n = (dL/dA) S_n T: two thin products, by autograd.

    paper       code      shape       meaning
    K           captions  (k, D)      tokens of the captions that are to read as before
    C           c         (D, D)      their Gram matrix, with a ridge on the diagonal
    T           rows      (M, D)      tokens of the concepts' captions, near-duplicates once
    (3) S_n     share     (N, M)      share of concept n in each row: 1 / number of concepts that have it, or 0
    P           p         (M, D)      what reads a text's share of each row
    Delta_n     -         (o, D)      what the adaptation to concept n added; only Delta_n T^T is needed

Deviations from the authors' code:
    - W_0 is what the copies started from, and Delta_n is kept by itself: their V^T - W_0 T^T is round-off where nothing
      was adapted. All of P is in float64, by Cholesky with a ridge; a bad condition number is an error.
    - Duplicates are found by tolerance, not bit by bit: a word read after prefixes of one length differs in the last
      digits. Where several concepts share a row, it reads as the mean of what they want.
    - Only a text's own tokens count, without the start token, which is the same for every text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from publisher.api import UsageError


class KeptTokens:
    """C of the captions to keep, factored once.

    Args:
        captions: K ``(k, D)``, any float dtype.
        ridge: number that is added to the diagonal, relative to its mean.
    """

    def __init__(self, captions: Tensor, ridge: float) -> None:
        k = captions.double()
        c = k.T @ k
        c.diagonal().add_(ridge * c.diagonal().mean())
        self.factor = torch.linalg.cholesky(c)

    def whiten(self, rows: Tensor) -> Tensor:
        """Return ``T C^-1`` for ``rows (M, D)``; float64."""
        solved: Tensor = torch.cholesky_solve(rows.double().T, self.factor)
        return solved.T


class Merge:
    """P for the texts of N concepts.

    Args:
        captions: C of the captions to keep.
        texts: rows ``(m_n, D)`` of each concept.
        tolerance: rows nearer than this, relative to their length, count as one.
        condition: largest condition number of ``T C^-1 T^T``.

    Raises:
        UsageError: the condition number is larger.
    """

    def __init__(self, captions: KeptTokens, texts: Sequence[Tensor], tolerance: float, condition: float) -> None:
        self.rows, self.share = distinct(texts, tolerance)
        white = captions.whiten(self.rows)
        inner = self.rows @ white.T
        spread = torch.linalg.eigvalsh(inner)
        worst = float(spread[-1] / spread[0].clamp(min=torch.finfo(torch.float64).tiny))
        if not worst <= condition:
            raise UsageError(
                f"the merging layer cannot tell {len(self.rows)} text rows of {self.rows.shape[1]} numbers apart "
                f"(condition number {worst:.1e}, at most {condition:.0e})",
                where="immunize",
                hint="Raise merge.tolerance or merge.ridge, shorten the prompts, or immunise fewer concepts at once.",
            )
        self.p = torch.cholesky_solve(white, torch.linalg.cholesky(inner))

    def combine(self, read: Tensor) -> Tensor:
        """Return ``A (o, M)`` of (3).

        Args:
            read: ``Delta_n T^T`` of every concept, ``(N, o, M)``.
        """
        return (read * self.share[:, None].to(read.dtype)).sum(0)

    def weight(self, weight: Tensor, a: Tensor) -> Tensor:
        """Return ``W_0 + A P (o, D)``, in the wider dtype of the two."""
        return weight + a @ self.p.to(a.dtype)

    def term(self, x: Tensor, a: Tensor) -> Tensor:
        """Return ``A P x (..., o)`` for texts ``x (..., D)``, without a matrix of the layer's size."""
        return (x @ self.p.to(x.dtype).T) @ a.T


def distinct(texts: Sequence[Tensor], tolerance: float) -> tuple[Tensor, Tensor]:
    """Return T and S: rows nearer than the tolerance once, as their mean.

    Returns:
        ``(M, D)`` and ``(N, M)``, float64. Rows join the first one that they are near to, so where nearness is not
        transitive the order of the concepts counts.
    """
    rows = torch.cat([text.double() for text in texts])
    owner = torch.cat([torch.full((len(text),), n) for n, text in enumerate(texts)])
    lengths = rows.norm(dim=1).clamp(min=1e-30)
    near = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") <= tolerance * torch.maximum(
        lengths[:, None], lengths
    )
    groups: list[Tensor] = []
    free = torch.ones(len(rows), dtype=torch.bool)
    for i in range(len(rows)):
        if free[i]:
            group = (near[i].cpu() & free).nonzero()[:, 0]
            free[group] = False
            groups.append(group)
    merged = torch.stack([rows[group.to(rows.device)].mean(0) for group in groups])
    share = torch.zeros(len(texts), len(groups), dtype=torch.float64)
    for m, group in enumerate(groups):
        owners = torch.unique(owner[group])
        share[owners, m] = 1 / len(owners)
    return merged, share.to(rows.device)
