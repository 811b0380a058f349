"""The upper level: what the published weights are moved by. The methods are in ``mima.py`` and ``imma.py``.

Minimised is  strength L_concept + prior L_prior + lam L_keep + mu L_innocent  with

    L_concept   adapted, on the concepts' rows: the mean of -(diffusion loss) (``ascend``; with a bound, of what the
                loss lacks of it), or of the squared difference to what the frozen model predicts there without
                adaptation (``hold``)
    L_prior     adapted, on kept rows: the diffusion loss
    L_keep      not adapted, on kept rows and kept texts: squared difference to the frozen model
    L_innocent  adapted to a kept concept under a rare word: squared difference to the frozen model, adapted alike

``hold``, L_keep and L_innocent are not in the papers. With ``mima`` the first two see one merged model, with ``imma``
each concept sees its own copy. Words alone do not merge: there the two methods are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from publisher_immunize.adversary import Adversary
from publisher_immunize.data import ConceptBatch
from publisher_immunize.denoiser import NOTHING, Denoising, Patch, PatchedDenoiser, Term, combined, rows
from publisher_immunize.imma import ascend
from publisher_immunize.merge import KeptTokens, Merge
from publisher_immunize.mima import follow, weighted

TERMS = ("concept", "prior", "keep", "innocent")
Tensors = dict[str, Tensor]
Kept = Callable[[], tuple[Tensors, float]]


@dataclass(frozen=True)
class OuterGradient:
    """Gradients and losses of one outer step."""

    gradients: Tensors
    """Gradient of the weighted sum, by name of the tensor."""
    losses: tuple[float, ...]
    """Losses of :data:`TERMS`, without their weights; 0 where a term is off."""


class OuterLevel:
    """The objective and its gradient.

    Args:
        denoising: denoiser, data and parameters.
        second: the same with a network of its own, for what another thread does; default: ``denoising``.
    """

    def __init__(self, denoising: Denoising, second: Denoising | None = None) -> None:
        self.denoising, self.second = denoising, second or denoising

    @cached_property
    def captions(self) -> KeptTokens:
        """Captions that the merge keeps, factored; only ``mima`` asks for them."""
        return KeptTokens(self.denoising.data.captions(), self.denoising.params.merge.ridge)

    def __call__(
        self,
        theta: Tensors,
        adversary: Adversary,
        batch: ConceptBatch,
        kept: Kept | None,
        innocent: tuple[Adversary, Adversary, ConceptBatch] | None,
    ) -> OuterGradient:
        """Return gradients with respect to ``theta``.

        Args:
            theta: name -> weight to publish, in the working dtype, that requires gradients.
            adversary: attacker that was adapted from ``theta``.
            batch: N groups of the concepts' rows, with kept rows for the prior.
            kept: function that waits for what :meth:`keep` returns; None: that term is off.
            innocent: attackers that were adapted to a kept concept from ``theta`` and from the frozen weights, and
                rows of that concept; None: that term is off.

        Raises:
            UsageError: the texts of the batch cannot be merged.
        """
        total = {name: torch.zeros_like(value) for name, value in theta.items()}
        wanted = self.denoising.frozen(batch) if self.denoising.params.objective == "hold" else None
        losses = [*self._adapted(theta, adversary, batch, wanted, total), 0.0, 0.0]
        if kept is not None:
            gradients, losses[2] = kept()
            for name, g in gradients.items():
                total[name] += g
        if innocent is not None:
            losses[3] = self._innocent(theta, innocent, total)
        return OuterGradient(total, tuple(losses))

    def keep(self, theta: Tensors, batch: ConceptBatch) -> tuple[Tensors, float]:
        """Return weighted gradients and loss of kept rows. They need no adaptation, so another thread can compute them.

        Args:
            theta: name -> weight to publish.
            batch: kept rows.
        """
        wanted = self.second.frozen(batch)

        def losses() -> Sequence[Tensor]:
            return (rows(self.second.predict(batch) - wanted, batch).mean(),)

        total = {name: torch.zeros_like(value) for name, value in theta.items()}
        (loss,) = _add(self.second.host, (theta, theta, NOTHING), losses, (self.denoising.params.lam,), total)
        return total, loss

    def merge(self, batch: ConceptBatch) -> Merge:
        """Return the merging layer for the texts of a batch."""
        return self._merge([batch.own_texts(group) for group in range(batch.groups)])

    def check(self) -> None:
        """Try the longest texts of each kind of caption, before the time is spent.

        Raises:
            UsageError: they cannot be merged.
        """
        shown, lengths = self.denoising.data.concepts, self.denoising.data.lengths
        for kind in self.denoising.params.caption_shares:
            self._merge(
                [sorted(set(images.captions[kind]), key=lambda text: (-lengths[text], text)) for images in shown]
            )

    def _merge(self, captions: Sequence[Sequence[str]]) -> Merge:
        data, settings = self.denoising.data, self.denoising.params.merge
        texts = [torch.cat([data.tokens(text) for text in lines[: settings.texts]]) for lines in captions]
        return Merge(self.captions, texts, settings.tolerance, settings.condition)

    def merged(self, theta: Tensors, adversary: Adversary, merge: Merge) -> tuple[Tensors, Patch]:
        """Return the merged model: weights, and what is added to them."""
        params = self.denoising.params
        through = not params.first_order and params.inner_order == 1
        weights, terms = dict(theta), {}
        for path, read in adversary.read(merge.rows).items():
            a = merge.combine(read)
            name = f"{path}.weight"
            if through and name in theta:
                weights[name] = theta[name].detach()
                a = follow(a, theta[name], merge.rows)
            terms[path] = _term(merge, a)
        return weights, combined([adversary.shared(), Patch(terms=terms)])

    def _adapted(
        self, theta: Tensors, adversary: Adversary, batch: ConceptBatch, wanted: Tensor | None, total: Tensors
    ) -> list[float]:
        params = self.denoising.params
        if params.method == "mima" and adversary.merges:
            weights, patch = self.merged(theta, adversary, self.merge(batch))
        else:
            weights, patch = theta, adversary.own()

        def losses() -> Sequence[Tensor]:
            predicted = self.denoising.predict(batch, patch)
            true = rows(predicted - self.denoising.target(batch), batch)
            held = ascend(true, params.bound) if wanted is None else rows(predicted - wanted, batch)
            prior = true[:, batch.own :]
            return held[:, : batch.own].mean(), prior.mean() if prior.numel() else true.new_zeros(())

        return _add(self.denoising.host, (theta, weights, patch), losses, (params.strength, params.prior), total)

    def _innocent(self, theta: Tensors, innocent: tuple[Adversary, Adversary, ConceptBatch], total: Tensors) -> float:
        mine, other, batch = innocent
        patch, frozen = mine.own(), other.own()
        with torch.no_grad():
            wanted = self.denoising.host.run({}, frozen, lambda: self.denoising.predict(batch, frozen))

        def losses() -> Sequence[Tensor]:
            return (rows(self.denoising.predict(batch, patch) - wanted, batch).mean(),)

        return _add(self.denoising.host, (theta, theta, patch), losses, (self.denoising.params.mu,), total)[0]


def _add(
    host: PatchedDenoiser,
    model: tuple[Tensors, Mapping[str, Tensor], Patch],
    losses: Callable[[], Sequence[Tensor]],
    scales: Sequence[float],
    total: Tensors,
) -> list[float]:
    """Add the gradient of the weighted sum to ``total``, and return the plain losses.

    Args:
        host: patched denoiser.
        model: weights that are trained, weights to forward with, and the patch.
        losses: function that computes the losses while the denoiser is patched.
        scales: weights of the losses.
        total: gradients of what is trained, so far.
    """
    theta, weights, patch = model

    def work() -> tuple[list[float], Sequence[Tensor | None]]:
        found = losses()
        whole = weighted(list(scales), list(found))
        gradients = torch.autograd.grad(whole, list(theta.values()), allow_unused=True)
        return [float(loss.detach()) for loss in found], gradients

    values, gradients = host.run(weights, patch, work)
    for name, g in zip(theta, gradients, strict=True):
        if g is not None:
            total[name] += g
    return list(values)


def _term(merge: Merge, a: Tensor) -> Term:
    return lambda x: merge.term(x, a)
