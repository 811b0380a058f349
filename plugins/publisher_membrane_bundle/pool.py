"""The same losses on trajectories that go on from step to step. All membranes of a bundle at once.

M trajectories x^1..x^M stand at staggered places of the sampler's grid; each belongs to one concept, in turn. A step
takes the next ``batch`` of them:

    1.  anchors are sampled; L and its gradient for every membrane at (x^j, t_j), t_j the trajectory's own timestep
    2.  the open predictions of (target, "") that L needed are at once the guided step of x^j
    3.  a trajectory at the last place but one starts again: fresh noise, next text

so that the partial denoising of ``exact`` costs nothing, and the denoiser is asked at the noise level of the latents.
The places are 0..T-2, visited as evenly as by ``exact``; x^j was begun by membranes at most M (T - 1) steps younger.

Samples, all from one generator: at the start a permutation, then x_T of every trajectory; in a step, for each of its
trajectories anchors (``data.py``), and x_T where it starts again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.api.diffusion.ddim import Ddim
from publisher.api.diffusion.euler import Euler
from publisher.api.diffusion.text import Text
from publisher_membrane_bundle.data import AnchorMix
from publisher_membrane_bundle.objective import MembraneLosses, NoisyPoint, Objective, TextTriple


@dataclass(frozen=True)
class PoolSize:
    """The size of a pool of trajectories."""

    trajectories: int
    """Number of trajectories, M."""
    batch: int
    """Number of trajectories that take part in one step."""


class Pool:
    """The trainer of k membranes at once.

    Args:
        objective: losses of k membranes.
        sampler: grid of timesteps, and the step from one to the next.
        anchors: source of anchors for each point.
        triples: texts of each concept.
        size: size of the pool.
        generator: source of all samples.
    """

    def __init__(
        self,
        objective: Objective,
        sampler: Ddim | Euler,
        anchors: AnchorMix,
        triples: Sequence[Sequence[TextTriple]],
        size: PoolSize,
        generator: torch.Generator,
    ) -> None:
        self.objective, self.sampler, self.anchors = objective, sampler, anchors
        self.triples, self.size, self.generator = triples, size, generator
        self.owners = torch.arange(size.trajectories) % len(triples)
        self.turns = torch.zeros(size.trajectories, dtype=torch.int64)
        self.places = torch.zeros(size.trajectories, dtype=torch.int64)
        self.x = torch.empty(0)
        self.done = 0

    def begin(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Stagger the places: every trajectory from its own noise to its place, with the membranes as they are."""
        count = self.size.trajectories
        order = torch.randperm(count, generator=self.generator)
        places = order * (self.sampler.steps - 1) // count
        self.turns = torch.arange(count) // len(self.triples)
        self.x = torch.cat([self._noise() for _ in range(count)])
        for place in range(int(places.max())):
            tell(f"trajectories brought to their places, {place} of {int(places.max())}")
            self._advance((places > place).nonzero()[:, 0])
        assert bool((self.places == places).all())  # noqa: S101 - by construction

    def step(self) -> MembraneLosses:
        """Compute the losses of the next ``batch`` trajectories, which then go on; leave the gradients behind."""
        chosen = [(self.done + i) % self.size.trajectories for i in range(self.size.batch)]
        losses = self.objective.backward([self._point(j) for j in chosen])
        index = torch.tensor(chosen)
        target, uncond = (torch.stack(parts) for parts in zip(*losses.guided, strict=True))
        self._move(index, target, uncond)
        for j in chosen:
            if self.places[j] > self.sampler.steps - 2:
                self._restart(j)
        self.done += self.size.batch
        return losses

    def state(self) -> dict[str, Tensor]:
        """Return all that goes on from step to step, but the generator."""
        return {"x": self.x, "places": self.places, "turns": self.turns, "done": torch.tensor([self.done])}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned, instead of :meth:`begin`."""
        self.x = state["x"].to(self.objective.denoiser.device)
        self.places, self.turns, self.done = state["places"], state["turns"], int(state["done"])

    def _noise(self) -> Tensor:
        denoiser = self.objective.denoiser
        shape = (1, denoiser.channels, *denoiser.size)
        return torch.randn(shape, generator=self.generator).to(denoiser.device)

    def _said(self, j: int, concept: int) -> TextTriple:
        mine = self.triples[concept]
        return mine[int(self.turns[j]) % len(mine)]

    def _point(self, j: int) -> NoisyPoint:
        owner = int(self.owners[j])
        said = tuple(self._said(j, concept) for concept in range(len(self.triples)))
        anchors = self.anchors.sample(said[owner].target, self.generator)
        return NoisyPoint(self.x[j : j + 1], self.sampler.grid[int(self.places[j])], said, anchors, owner)

    def _advance(self, index: Tensor) -> None:
        """Take a guided step of the shut model: at the start membranes change nothing."""
        texts = self.objective.texts
        targets = [texts[self._said(int(j), int(self.owners[j])).target] for j in index]
        t = self.sampler.timesteps(self.places[index]).to(self.x.device)
        x = self.x[index]
        both = Text.join([*targets, *[texts[""]] * len(index)])
        target, uncond = self.objective.denoiser.frozen(torch.cat([x, x]), torch.cat([t, t]), both).chunk(2)
        self._move(index, target, uncond)

    def _move(self, index: Tensor, target: Tensor, uncond: Tensor) -> None:
        self.x[index] = self.sampler.step(self.x[index], self.places[index], target, uncond)
        self.places[index] += 1

    def _restart(self, j: int) -> None:
        self.x[j] = self._noise()[0]
        self.places[j] = 0
        self.turns[j] += max(1, self.size.trajectories // len(self.triples))
