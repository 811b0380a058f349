"""Learn a mask: the fine-tunings, then what the recipe makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from publisher.api import UsageError
from publisher.api.freeze_mask import Rows
from publisher_freeze_mask.jobs import Adapted, Worker, jobs
from publisher_freeze_mask.material import Album
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.place import Loss
from publisher_freeze_mask.refine import Side, begin, step
from publisher_freeze_mask.released import released
from publisher_freeze_mask.units import Budget, Units, worth

Mask = dict[str, Rows]


@dataclass(frozen=True)
class Learned:
    """One mask and how it came about."""

    mask: Mask
    adapted: tuple[Adapted, ...] = ()
    scores: Tensor | None = None
    """What freezing each unit is worth, ``(n,)``; None where nothing was scored."""
    lost: tuple[tuple[float, float], ...] = ()
    """Shares lost by the relaxed mask, illegal and innocent, at each step of the refinement."""
    initial: Mask | None = None
    """``released``: what the mask was before anything was learned."""


@dataclass(frozen=True)
class Studio:
    """Learns masks.

    Args:
        worker: of the fine-tunings; None: recipe ``random``.
        units: of the candidates.
        budget: of every mask.
        params: every None replaced.
        generator: purpose -> a generator, from its beginning.
        progress: is told how many steps more are done, and a line.
    """

    worker: Worker | None
    units: Units
    budget: Budget
    params: FreezeMaskParams
    generator: Callable[[str], torch.Generator]
    progress: Callable[[int, str], None]

    def learn(self, seed: int) -> Learned:
        """From the seed's own samples; 0 is the mask that is published.

        Raises:
            UsageError: a fine-tuning learned nothing, or its loss is no number any more.
        """
        worker = self.worker
        if worker is None:
            scores = torch.rand(len(self.units), generator=self.generator(f"seed-{seed}/mask"), dtype=torch.float64)
            return Learned(self.units.top(scores, self.budget))
        adapted = tuple(worker(job, seed) for job in jobs(self.params, worker.attacker.material))
        return self._mask(worker, adapted, seed, swapped=False)

    def swapped(self, learned: Learned) -> Learned:
        """The same with the sides exchanged."""
        if self.worker is None:
            return learned
        return self._mask(self.worker, learned.adapted, 0, swapped=True)

    def _mask(self, worker: Worker, adapted: Sequence[Adapted], seed: int, *, swapped: bool) -> Learned:
        if self.params.recipe == "released":
            return self._released(worker, adapted, seed, swapped=swapped)
        sides = tuple([one for one in adapted if one.job.side == side] for side in ("illegal", "innocent"))
        illegal, innocent = reversed(sides) if swapped else sides
        scores = self._scores(illegal, innocent)
        ranked = self.units.rank(scores, self.budget, self.params.order)
        if self.params.recipe == "path":
            return Learned(self.units.top(ranked, self.budget), tuple(adapted), scores)
        return self._refined(worker, illegal, innocent, scores)

    def _scores(self, illegal: Sequence[Adapted], innocent: Sequence[Adapted]) -> Tensor:
        for one in (*illegal, *innocent):
            if not one.path.gain > 0:
                raise UsageError(
                    f"the fine-tuning {one.job.label!r} learned nothing: loss {one.path.before:.4g} before, "
                    f"{one.path.after:.4g} after",
                    where="freeze-mask",
                    hint="Give it more steps or another rate (adapt.steps, adapt.lr). A concept that the model still "
                    "knows leaves nothing to learn under its own name: erase it first, or add captions: [rare].",
                )
        return worth(self.units, [one.path for one in illegal], [one.path for one in innocent], self.params.lam)

    def _refined(
        self, worker: Worker, illegal: Sequence[Adapted], innocent: Sequence[Adapted], scores: Tensor
    ) -> Learned:
        at = begin(self.units.rank(scores, self.budget, self.params.order), self.params.refine)
        place = worker.attacker.place
        while at.done < self.params.refine.steps:
            one, other = illegal[at.done % len(illegal)], innocent[at.done % len(innocent)]
            sides = (
                Side(one.delta, one.path, 1.0, one.batches),
                Side(other.delta, other.path, -self.params.lam, other.batches),
            )
            step(place, self.units, sides, self.budget, at, self.params.refine.temperature)
            self.progress(1, f"refined: lost {at.lost[-1][0]:.0%} illegal, {at.lost[-1][1]:.0%} innocent")
        mask = self.units.top(at.x.detach(), self.budget)
        return Learned(mask, (*illegal, *innocent), scores, tuple(at.lost))

    def _released(self, worker: Worker, adapted: Sequence[Adapted], seed: int, *, swapped: bool) -> Learned:
        params, (both,) = self.params.released, adapted
        generator = self.generator(f"seed-{seed}/mask")
        start, x = released(
            worker.attacker.place,
            self.units,
            both.delta,
            partial(self._batch, worker, generator, swapped=swapped),
            rho=self.params.ratio,
            params=params,
            generator=generator,
        )
        frozen = replace(self.budget, size=int((x > 0).sum()))
        return Learned(self.units.top(x, frozen), tuple(adapted), None, initial=self.units.top(start, frozen))

    def _batch(self, worker: Worker, generator: torch.Generator, *, swapped: bool) -> tuple[Loss, Loss]:
        """Half of it illegal, half innocent: the mask's loss and the user's."""
        material, size = worker.attacker.material, max(1, self.params.released.batch // 2)
        illegal = Album.join([one for ones in material.illegal.values() for one in ones])
        self.progress(1, "released")
        losses = []
        for album in (illegal, Album.join(material.innocent)):
            sampled = material.sample(album, size, generator)
            losses.append(partial(material.loss, worker.attacker.denoiser, album, sampled))
        bad, good = reversed(losses) if swapped else losses
        return (lambda: (good() - bad()) / 2), (lambda: (good() + bad()) / 2)
