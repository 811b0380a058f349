"""``schedule: auto``: is re-learning late enough, at what cost to kept images? Measured on held-out images.

The probe is a LoRA on each concept, all in one batch, with the same samples each time. The mark is the held-out loss
that the model before immunisation reaches after ``auto.steps`` training steps. The delay is how many times as many
steps these weights take to it: found by linear interpolation between every ``auto.steps`` steps, at most ``delay``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from publisher_immunize.adversary import Adversary
from publisher_immunize.denoiser import NOTHING, Denoising, Weights

ROWS = 8
"""Number of noisy held-out rows of each concept that a loss is the mean of."""


@dataclass(frozen=True)
class Probed:
    """The outcome of one probe."""

    delay: float
    """Steps that re-learning takes, relative to the model before immunisation; at most the wanted delay."""
    innocent: float
    """Rise of the kept images' loss, as a share."""


class Schedule:
    """The probe of one run.

    Args:
        denoising: denoiser, training part of the data, and parameters.
        held: the same with the held-out part.
        generator: purpose -> generator, from its beginning.
    """

    def __init__(self, denoising: Denoising, held: Denoising, generator: Callable[[str], torch.Generator]) -> None:
        auto = denoising.params.auto
        self.denoising = replace(denoising, params=denoising.params.model_copy(update={"inner_lr": auto.lr}))
        self.held, self.generator = held, generator
        self.rounds = math.ceil(denoising.params.delay)
        concepts, kept = held.data.concepts, held.data.kept
        self.batch = held.data.batch(concepts, "name", (ROWS, 0), generator("probe/concepts"))
        self.kept = held.data.keep_batch(4 * ROWS, generator("probe/kept")) if kept else None
        self.mark = self._curve({}, 1)[-1]
        self.kept_before = self._kept({})

    def probe(self, weights: Weights) -> Probed:
        """Measure how far these weights are."""
        plain = {name: value.detach() for name, value in weights.items()}
        rise = self._kept(plain) / self.kept_before - 1 if self.kept_before else 0.0
        return Probed(self._delay(plain), rise)

    def enough(self, found: Probed) -> bool:
        """Return whether the wanted delay is reached."""
        return found.delay >= self.denoising.params.delay

    def harmless(self, found: Probed) -> bool:
        """Return whether kept images are within the bound."""
        return found.innocent <= self.denoising.params.auto.innocent

    def _delay(self, weights: Weights) -> float:
        curve = self._curve(weights, self.rounds)
        for i, (before, after) in enumerate(pairwise(curve)):
            if after <= self.mark:
                part = (before - self.mark) / (before - after) if before > self.mark else 0.0
                return i + part
        return self.denoising.params.delay

    def _curve(self, weights: Weights, rounds: int) -> list[float]:
        """Return the held-out loss before training and after each ``auto.steps`` steps of it."""
        data, params = self.denoising.data, self.denoising.params
        samples = self.generator("probe/batches")
        adversary = Adversary("lora", len(data.concepts), self.denoising, self.generator("probe/adapters"))
        losses = [self._loss(weights, adversary)]
        for _ in range(rounds):
            size = (params.batch or 1, 0)
            batches = [data.batch(data.concepts, "name", size, samples) for _ in range(params.auto.steps)]
            adversary.learn(weights, batches)
            losses.append(self._loss(weights, adversary))
        return losses

    @torch.no_grad()
    def _loss(self, weights: Weights, adversary: Adversary) -> float:
        patch = adversary.own()
        found: Tensor = self.held.host.run(weights, patch, lambda: self.held.losses(self.batch, patch))
        return float(found.mean())

    @torch.no_grad()
    def _kept(self, weights: Weights) -> float:
        kept = self.kept
        if kept is None:
            return 0.0
        found: Tensor = self.held.host.run(weights, NOTHING, lambda: self.held.losses(kept))
        return float(found.mean())
