"""``schedule: auto``: is re-learning late enough, at what cost to kept images? Measured on held-out images.

The probe is a LoRA on each concept, all in one batch, with the same samples each time. The mark is the held-out loss
that the model before immunisation reaches after ``auto.steps`` training steps. The delay is how many times as many
steps these weights take to it: found by linear interpolation between every ``auto.steps`` steps, at most ``delay``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from publisher_immunize.bench import Bench
from publisher_immunize.host import NOTHING, Weights
from publisher_immunize.inner import Adversary

ROWS = 8
"""Noisy held-out rows of each concept that a loss is the mean of."""


@dataclass(frozen=True)
class Probed:
    """Of one probe."""

    delay: float
    """Times the steps of the model before immunisation, cut off at the wanted delay."""
    innocent: float
    """How much the loss of kept images has risen, as a share."""


class Schedule:
    """Probes one run.

    Args:
        bench: with the training part of the material.
        held: the same with the held-out part.
        generator: purpose -> a generator, from its beginning.
    """

    def __init__(self, bench: Bench, held: Bench, generator: Callable[[str], torch.Generator]) -> None:
        auto = bench.params.auto
        self.bench = replace(bench, params=bench.params.model_copy(update={"inner_lr": auto.lr}))
        self.held, self.generator = held, generator
        self.rounds = -(-int(bench.params.delay * auto.steps) // auto.steps)
        concepts, kept = held.material.concepts, held.material.kept
        self.batch = held.material.batch(concepts, "name", (ROWS, 0), generator("probe/concepts"))
        self.kept = held.material.keep_batch(4 * ROWS, generator("probe/kept")) if kept else None
        self.mark = self._curve({}, 1)[-1]
        self.kept_before = self._kept({})

    def probe(self, weights: Weights) -> Probed:
        """How far it is."""
        plain = {name: value.detach() for name, value in weights.items()}
        rise = self._kept(plain) / self.kept_before - 1 if self.kept_before else 0.0
        return Probed(self._delay(plain), rise)

    def enough(self, found: Probed) -> bool:
        """The wanted delay is reached."""
        return found.delay >= self.bench.params.delay

    def harmless(self, found: Probed) -> bool:
        """Kept images are within the bound."""
        return found.innocent <= self.bench.params.auto.innocent

    def _delay(self, weights: Weights) -> float:
        curve = self._curve(weights, self.rounds)
        for i, (before, after) in enumerate(pairwise(curve)):
            if after <= self.mark:
                part = (before - self.mark) / (before - after) if before > self.mark else 0.0
                return i + part
        return self.bench.params.delay

    def _curve(self, weights: Weights, rounds: int) -> list[float]:
        """Held-out loss before training and after each ``auto.steps`` steps of it."""
        material, params = self.bench.material, self.bench.params
        samples = self.generator("probe/batches")
        adversary = Adversary("lora", len(material.concepts), self.bench, self.generator("probe/adapters"))
        losses = [self._loss(weights, adversary)]
        for _ in range(rounds):
            size = (params.batch or 1, 0)
            batches = [material.batch(material.concepts, "name", size, samples) for _ in range(params.auto.steps)]
            adversary.learn(weights, batches)
            losses.append(self._loss(weights, adversary))
        return losses

    @torch.no_grad()
    def _loss(self, weights: Weights, adversary: Adversary) -> float:
        change = adversary.own()
        found: Tensor = self.held.host.run(weights, change, lambda: self.held.losses(self.batch, change))
        return float(found.mean())

    @torch.no_grad()
    def _kept(self, weights: Weights) -> float:
        kept = self.kept
        if kept is None:
            return 0.0
        found: Tensor = self.held.host.run(weights, NOTHING, lambda: self.held.losses(kept))
        return float(found.mean())
