"""The authors' loop (their section "one iteration"), without the work that cancels. One membrane at a time.

    1.  k ~ U{1..T-1}; x_T ~ N(0, I); k DDIM steps with the membrane open, the target text and guidance w
    2.  t = the k-th of T evenly spaced entries of the full timestep table, counted from the noisy end
    3.  one optimizer step on L at (x, t)

    paper      code             default   meaning
    T          ddim.steps       30        steps of the grid
    w          ddim.guidance    3         guidance scale while denoising

Step 2 is a quirk, kept here: the latents lie on the grid of T steps, t on the table of 1000, so that the denoiser is
asked 33 to 42 timesteps too noisy. ``pool`` asks where the latents are.

Samples of one step, all from one generator: text; k; height and width, where the resolution is dynamic; x_T; anchors
(``data.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from publisher.api.diffusion.ddim import Ddim
from publisher.api.diffusion.text import Text
from publisher_membrane_bundle.data import AnchorMix
from publisher_membrane_bundle.objective import MembraneLosses, NoisyPoint, Objective, TextTriple


class Exact:
    """The authors' trainer, of one membrane.

    Args:
        objective: losses of one membrane.
        ddim: grid of timesteps.
        anchors: source of anchors for each step.
        triples: texts of the concept.
        dynamic: sample height and width of the latents from 4/8, 5/8, 6/8 and 7/8 of the model's.
        generator: source of all samples.
    """

    def __init__(
        self,
        objective: Objective,
        ddim: Ddim,
        anchors: AnchorMix,
        triples: Sequence[TextTriple],
        *,
        dynamic: bool,
        generator: torch.Generator,
    ) -> None:
        self.objective, self.ddim, self.anchors = objective, ddim, anchors
        self.triples, self.dynamic, self.generator = triples, dynamic, generator

    def begin(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """Skip this: only the generator goes on from step to step."""

    def step(self) -> MembraneLosses:
        """Compute the losses of one x_t, and leave the gradients with the membrane."""
        said = self.triples[self._sample(0, len(self.triples))]
        k = self._sample(1, self.ddim.steps)
        x = self._denoised(said.target, k)
        entry = k * self.ddim.train_steps // self.ddim.steps
        anchors = self.anchors.sample(said.target, self.generator)
        return self.objective.backward([NoisyPoint(x, self.ddim.train_steps - 1 - entry, (said,), anchors)])

    def state(self) -> dict[str, Tensor]:
        """Return nothing; see :meth:`begin`."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore nothing; see :meth:`begin`."""

    def _sample(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=self.generator))

    def _denoised(self, target: str, k: int) -> Tensor:
        denoiser, membranes = self.objective.denoiser, self.objective.membranes
        height, width = ((size * self._sample(4, 8) // 8 if self.dynamic else size) for size in denoiser.size)
        x = torch.randn(1, denoiser.channels, height, width, generator=self.generator).to(denoiser.device)
        text = Text.join([self.objective.texts[target], self.objective.texts[""]])
        with membranes.folded() if membranes.foldable else membranes.open():
            for position in range(k):
                t = torch.full((2,), self.ddim.grid[position], device=x.device)
                guided = denoiser.frozen(x.expand(2, -1, -1, -1), t, text)
                x = self.ddim.step(x, torch.tensor([position]), guided[:1], guided[1:])
        return x
