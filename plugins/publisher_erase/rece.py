"""RECE: find what still calls a concept up after an edit, and edit that away too.

Source: C. Gong, K. Chen, Z. Wei, J. Chen, Y.-G. Jiang, "Reliable and Efficient Concept Erasure of Text-to-Image
Diffusion Models", ECCV 2024, arXiv 2407.12383, with the authors' code (403a67f), variant ``close_regzero``.

Start from the UCE edit. In each epoch find, for every embedding ``c`` of a concept, the ``c'`` that gives the edited
projections ``W_l`` what ``c`` gave the original ones, all layers l together:

    c' = argmin_x  sum_l |W_l x - Wold_l c|^2 + rho |x|^2                                                 (objective)
       = (rho I + sum_l W_l^T W_l)^-1 (sum_l W_l^T Wold_l) c,                                             (solution)

then apply UCE once more with ``c'`` in the place of ``c``; "old" there means the weights before this epoch.

Every edited projection is ``W_l = Wold_l S`` with one map S for all layers (see ``uce.py``), so with

    M = sum_l Wold_l^T Wold_l                                                                             (Gram matrix)
    c' = (rho I + S^T M S)^-1 S^T M c      for all rows of all concepts at once                           (rows)
    S <- S T(c')                                                                                          (next S)
    S <- T(c, c', c'', ...)                                                                               (joint)

the layers are read once for M and touched once more at the end.

Where text enters by one matrix E with fewer rows than columns (3072 and 4096 in FLUX.1), M = E^T E. The push-through
identity gives the same rows from a system as large as E has rows, and M is never made:

    B = E S,     c' = B^T (rho I + B B^T)^-1 E c      for all rows at once                                (thin rows)

    paper             code      shape     meaning
    c, rows of C      concepts  (m, d)    embeddings of the concepts, by the original text encoder
    c'                          (m, d)    adversarial embeddings of this epoch
    lambda (reg.)     rho       scalar    pull of c' towards 0 (the code's regular_scale)
    (product of T)    s         LowRank   all edits so far
    (sum W^T W)       gram      (d, d)    M
    E                 entry     (o, d)    the one weight by which text enters, o < d
    B                 b         (o, d)    the same after all edits so far
    epochs            epochs    scalar    how often

Deviations:
    - ``joint`` (the default) solves every epoch from the original weights with the concept's rows and all c' found so
      far, instead of editing the last epoch's weights with c' alone. That edit moves c away from its target again: with
      many retained prompts the concept comes back (``docs/explanation/erase.md`` has the figures of both).
    - d x d algebra in place of a loop over layers, concepts and tokens: equal in exact arithmetic.
    - One system for all concepts of an epoch; the authors' loop also derives all before it edits any.
    - A fixed number of epochs: the authors choose the epoch by a detector's verdict on validation images, which here is
      the business of the release's checks.
    - Retained rows count as a mean over texts; the authors' count grows with the number of concepts.
    - All edits use one lambda and one p; the authors take 0.5 and 1 for the first, then 0.1 and 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from publisher_erase.uce import LowRank, Rows, edit_map

BLOCKS = 4
"""Number of block columns of the Gram matrix: only those on and below the diagonal are computed, 10 of 16 products."""


def gram(weights: Iterable[Tensor], device: torch.device | str = "cpu") -> Tensor:
    """Return M of (Gram matrix), ``(d, d)`` float64.

    Products of one layer in float32, the sum over layers in float64. Float32 is enough: M enters on both sides of the
    solution, and against float64 products the edit moves by less than 1e-6 of the largest weight
    (``benchmarks/erase.py``). Half-precision weights are widened first.

    Args:
        weights: the original projections ``(o_l, d)``, any float dtype; read one at a time.
        device: device of the products.

    Raises:
        ValueError: no weight.
    """
    total: Tensor | None = None
    for weight in weights:
        part = _lower_product(weight.to(device, torch.promote_types(weight.dtype, torch.float32)))
        total = part.double() if total is None else total.add_(part)
    if total is None:
        raise ValueError("no projection was given: there is nothing to derive from")
    return total.tril() + total.tril(-1).T


def _lower_product(weight: Tensor) -> Tensor:
    """Return ``W^T W (d, d)`` on and below the diagonal blocks; above them it is zero or redundant."""
    d = weight.shape[1]
    product = weight.new_zeros(d, d)
    width = -(-d // BLOCKS)
    for start in range(0, d, width):
        stop = min(start + width, d)
        torch.mm(weight[:, start:].T, weight[:, start:stop], out=product[start:, start:stop])
    return product


def adversarial_rows(concepts: Tensor, s: LowRank, gram: Tensor, rho: float) -> Tensor:
    """Return the rows ``c'`` of (rows), which undo the edit ``s``: ``(m, d)`` to ``(m, d)``.

    Args:
        concepts: original rows c ``(m, d)``.
        s: all edits so far.
        gram: M ``(d, d)``.
        rho: pull towards 0, above 0 and finite; the system is then positive definite whatever rank S has.

    Raises:
        ValueError: rho outside its range.
    """
    _check(rho)
    dense = s.dense()
    left = dense.T @ gram
    system = left @ dense
    system.diagonal().add_(rho)
    return torch.cholesky_solve(left @ concepts.T, torch.linalg.cholesky(system)).T


def thin_rows(concepts: Tensor, s: LowRank, entry: Tensor, rho: float) -> Tensor:
    """Return the rows ``c'`` of (thin rows), which are those of (rows) for one weight: ``(m, d)`` to ``(m, d)``.

    Args:
        concepts: original rows c ``(m, d)``.
        s: all edits so far.
        entry: E ``(o, d)``, float64.
        rho: pull towards 0, above 0 and finite.

    Raises:
        ValueError: rho outside its range.
    """
    _check(rho)
    b = entry + (entry @ s.u) @ s.v
    system = b @ b.T
    system.diagonal().add_(rho)
    return torch.cholesky_solve(entry @ concepts.T, torch.linalg.cholesky(system)).T @ b


def _check(rho: float) -> None:
    if not (rho > 0 and math.isfinite(rho)):
        raise ValueError(f"rho must be above 0 and finite; got {rho}")


def erase_map(
    rows: Rows,
    matrix: Tensor,
    epochs: int,
    rho: float,
    scales: tuple[float, float, float],
    *,
    joint: bool = True,
    thin: bool = False,
) -> LowRank:
    """Edit once as UCE does, then derive and edit in ``epochs`` rounds.

    Args:
        rows: rows to take away, what they become, and rows to keep.
        matrix: M ``(d, d)``; with ``thin`` E ``(o, d)``.
        epochs: number of rounds; 0 gives UCE alone.
        rho: pull of c' towards 0.
        scales: ``lam``, ``e``, ``p`` of every edit.
        joint: solve each epoch from the original weights with all rows found so far; False edits on top of the
            epoch before, as the paper does.
        thin: text enters by the one weight E, which stands for M.

    Returns:
        ``S``: edited projections are ``Wold_l S``.
    """
    derive = thin_rows if thin else adversarial_rows
    s, found = edit_map(rows, *scales), rows
    for _ in range(epochs):
        attack = replace(rows, concepts=derive(rows.concepts, s, matrix, rho))
        found = _joined(found, attack)
        s = edit_map(found, *scales) if joint else s.then(edit_map(attack, *scales))
    return s


def _joined(first: Rows, second: Rows) -> Rows:
    return replace(
        first,
        concepts=torch.cat([first.concepts, second.concepts]),
        targets=torch.cat([first.targets, second.targets]),
        w=torch.cat([first.w, second.w]),
    )
