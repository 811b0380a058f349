"""The outer level: what the published weights are moved by.

    max_theta  sum_n L(x_n, c_n; Merge({theta'_m}))                                                        (MIMA)
    max_theta  L(x, c; theta, phi*)                                                 (IMMA, ECCV 2024, arXiv 2311.18815)

minimised here as  strength L_concept + prior L_prior + lam L_keep + mu L_innocent  with

    L_concept   adapted, on the concepts' rows: the mean of -(diffusion loss) (``ascend``; with a bound, of what the
                loss lacks of it), or of the squared difference to what the frozen model predicts there without
                adaptation (``hold``)
    L_prior     adapted, on kept rows: the diffusion loss
    L_keep      not adapted, on kept rows and kept texts: squared difference to the frozen model
    L_innocent  adapted to a kept concept under a rare word: squared difference to the frozen model, adapted alike

The gradient of the first two through the merge  W = W_0 + sum_n (W_n' - W_0) T^T S_n P:

    first_order     W_n' - W_0 is a constant: the identity                                          (the released code)
    otherwise       the copies W_n' = W + Delta_n follow W, the anchor W_0 and the inner gradients are constants:
                    dL/dW = (dL/dW_new) P^T T, what the concepts' own tokens say. The value stays W + sum_n ...
    inner_order 2   the exact derivative of the value: inner gradients and anchor follow W

With ``imma``, or words alone, nothing is merged, and the first two are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher_immunize.bench import Bench, rows
from publisher_immunize.host import NOTHING, Change, Host, Term, combined
from publisher_immunize.inner import Adversary
from publisher_immunize.material import Batch
from publisher_immunize.merge import Captions, Merge

TERMS = ("concept", "prior", "keep", "innocent")
Tensors = dict[str, Tensor]
Kept = Callable[[], tuple[Tensors, float]]


@dataclass(frozen=True)
class Found:
    """Of one outer step."""

    gradients: Tensors
    """Of the weighted sum."""
    losses: tuple[float, ...]
    """:data:`TERMS`, without their weights; 0 where one is off."""


class Outer:
    """The objective and its gradient.

    Args:
        bench: what it works with.
        beside: the same with a network of its own, for what another thread does; default: ``bench``.
    """

    def __init__(self, bench: Bench, beside: Bench | None = None) -> None:
        self.bench, self.beside = bench, beside or bench
        self.captions = Captions(bench.material.captions(), bench.params.merge.ridge)

    def __call__(
        self,
        theta: Tensors,
        adversary: Adversary,
        batch: Batch,
        kept: Kept | None,
        innocent: tuple[Adversary, Adversary, Batch] | None,
    ) -> Found:
        """Gradients with respect to ``theta``.

        Args:
            theta: name -> weight to publish, in the working dtype, that requires gradients.
            adversary: adapted from ``theta``.
            batch: N groups of the concepts' rows, with kept rows for the prior.
            kept: waits for what :meth:`keep` gives; None: that term is off.
            innocent: adapted to a kept concept from ``theta`` and from the frozen weights, and rows of that concept;
                None: that term is off.

        Raises:
            UsageError: the texts of the batch cannot be merged.
        """
        total = {name: torch.zeros_like(value) for name, value in theta.items()}
        wanted = self.bench.frozen(batch) if self.bench.params.objective == "hold" else None
        losses = [*self._adapted(theta, adversary, batch, wanted, total), 0.0, 0.0]
        if kept is not None:
            gradients, losses[2] = kept()
            for name, g in gradients.items():
                total[name] += g
        if innocent is not None:
            losses[3] = self._innocent(theta, innocent, total)
        return Found(total, tuple(losses))

    def keep(self, theta: Tensors, batch: Batch) -> tuple[Tensors, float]:
        """Weighted gradients and loss of kept rows. Nothing of an adaptation is in them: they can be had beside it.

        Args:
            theta: as above.
            batch: kept rows.
        """
        wanted = self.beside.frozen(batch)

        def losses() -> Sequence[Tensor]:
            return (rows(self.beside.predict(batch) - wanted, batch).mean(),)

        total = {name: torch.zeros_like(value) for name, value in theta.items()}
        (loss,) = _add(self.beside.host, (theta, theta, NOTHING), losses, (self.bench.params.lam,), total)
        return total, loss

    def merge(self, batch: Batch) -> Merge:
        """The merging layer for the texts of a batch."""
        return self._merge([batch.own_texts(group) for group in range(batch.groups)])

    def check(self) -> None:
        """Try the longest texts of each kind of caption, before the time is spent.

        Raises:
            UsageError: they cannot be merged.
        """
        albums, lengths = self.bench.material.concepts, self.bench.material.lengths
        for kind in self.bench.params.captions:
            self._merge(
                [sorted(set(album.captions[kind]), key=lambda text: (-lengths[text], text)) for album in albums]
            )

    def _merge(self, captions: Sequence[Sequence[str]]) -> Merge:
        material, settings = self.bench.material, self.bench.params.merge
        texts = [torch.cat([material.tokens(text) for text in lines[: settings.texts]]) for lines in captions]
        return Merge(self.captions, texts, settings.tolerance, settings.condition)

    def merged(self, theta: Tensors, adversary: Adversary, merge: Merge) -> tuple[Tensors, Change]:
        """The merged model: weights, and what is added to them."""
        params = self.bench.params
        through = not params.first_order and params.inner_order == 1
        weights, terms = dict(theta), {}
        for path, read in adversary.read(merge.rows).items():
            a = merge.combine(read)
            name = f"{path}.weight"
            if through and name in theta:
                weights[name] = theta[name].detach()
                a = a + (theta[name] - weights[name]) @ merge.rows.to(a.dtype).T  # zero, with a gradient
            terms[path] = _term(merge, a)
        return weights, combined([adversary.shared(), Change(terms=terms)])

    def _adapted(
        self, theta: Tensors, adversary: Adversary, batch: Batch, wanted: Tensor | None, total: Tensors
    ) -> list[float]:
        params = self.bench.params
        if params.method == "mima" and adversary.merges:
            weights, change = self.merged(theta, adversary, self.merge(batch))
        else:
            weights, change = theta, adversary.own()

        def losses() -> Sequence[Tensor]:
            predicted = self.bench.predict(batch, change)
            true = rows(predicted - self.bench.target(batch), batch)
            if wanted is not None:
                held = rows(predicted - wanted, batch)
            else:
                held = (params.bound - true).clamp(min=0) if params.bound else -true
            prior = true[:, batch.own :]
            return held[:, : batch.own].mean(), prior.mean() if prior.numel() else true.new_zeros(())

        return _add(self.bench.host, (theta, weights, change), losses, (params.strength, params.prior), total)

    def _innocent(self, theta: Tensors, innocent: tuple[Adversary, Adversary, Batch], total: Tensors) -> float:
        mine, other, batch = innocent
        change, frozen = mine.own(), other.own()
        with torch.no_grad():
            wanted = self.bench.host.run({}, frozen, lambda: self.bench.predict(batch, frozen))

        def losses() -> Sequence[Tensor]:
            return (rows(self.bench.predict(batch, change) - wanted, batch).mean(),)

        return _add(self.bench.host, (theta, theta, change), losses, (self.bench.params.mu,), total)[0]


def _add(
    host: Host,
    model: tuple[Tensors, Mapping[str, Tensor], Change],
    losses: Callable[[], Sequence[Tensor]],
    scales: Sequence[float],
    total: Tensors,
) -> list[float]:
    """Add the gradient of the weighted sum to ``total``; the plain losses.

    Args:
        host: forwards.
        model: what is trained, the weights to forward with, and what is added to them.
        losses: made inside.
        scales: their weights.
        total: gradients of what is trained, so far.
    """
    theta, weights, change = model

    def work() -> tuple[list[float], Sequence[Tensor | None]]:
        found = losses()
        whole = torch.stack([scale * loss for scale, loss in zip(scales, found, strict=True)]).sum()
        gradients = torch.autograd.grad(whole, list(theta.values()), allow_unused=True)
        return [float(loss.detach()) for loss in found], gradients

    values, gradients = host.run(weights, change, work)
    for name, g in zip(theta, gradients, strict=True):
        if g is not None:
            total[name] += g
    return list(values)


def _term(merge: Merge, a: Tensor) -> Term:
    return lambda x: merge.term(x, a)
