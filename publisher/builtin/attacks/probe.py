"""The noise-based probe (arXiv 2505.17013): the concept's prompts, sampled with more noise in each step than usual.

Source: the authors' ``noise_based_probe.py``: eta 1 to 1.85, variance scales 1 to 1.04, of each prompt the image that
scores best. Deviation: each pair of numbers is judged on its own, on fresh seeds; a best of 24 images finds something
in any model.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from publisher.api import Access, Begin, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget
from publisher.builtin.attacks.narrowing import own_prompts
from publisher.builtin.attacks.pictures import above_input

if TYPE_CHECKING:
    import torch


class NoiseProbeParams(SearchParams):
    """Parameters of ``noise-probe``."""

    etas: tuple[Annotated[float, Field(gt=0, le=10)], ...] | None = Field(default=None, min_length=1)
    """Noise that each step adds, as multiples of what DDPM would add, each on its own. Default: by the budget."""
    noise_scales: tuple[Annotated[float, Field(gt=0, le=10)], ...] | None = Field(default=None, min_length=1)
    """What that noise is multiplied by besides, each with each eta. Default: by the budget."""
    images: int | None = Field(default=None, ge=1, le=1000)
    """Images by which the search compares the pairs. Default: by the budget."""
    steps: int = Field(default=20, ge=1, le=1000)
    """Sampling steps."""


class NoiseProbe(SearchAttack[NoiseProbeParams]):
    """Ask for the concept while each sampling step adds more noise than the sampler reckons with."""

    name = "noise-probe"
    version = "1"
    summary = "the concept's prompts, sampled with more noise in each step (DDIM with eta above 1)"
    access = Access.IMAGE
    grants = frozenset({Access.IMAGE})
    floors = ("retrained", "shuffled")
    shuffles = "judge"
    suites = frozenset({"standard", "thorough"})
    budgets = MappingProxyType(
        {
            "quick": {"etas": [1.5], "noise_scales": [1.0], "images": 12},
            "standard": {"etas": [1.0, 1.34, 1.68], "noise_scales": [1.0, 1.04], "images": 24},
            "thorough": {
                "etas": [1.0, 1.17, 1.34, 1.51, 1.68, 1.85],
                "noise_scales": [1.0, 1.02, 1.03, 1.04],
                "images": 24,
            },
        }
    )

    def limits(self, params: NoiseProbeParams) -> Limits:
        """Return the images of all pairs."""
        return Limits(images=(params.images or 0) * len(params.etas or ()) * len(params.noise_scales or ()))

    def search(
        self,
        params: NoiseProbeParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - the noise is that of the images
    ) -> Iterator[Find]:
        """Yield the pairs that showed the concept."""
        import torch

        from publisher.api.diffusion.starting import Start

        images, prompts = params.images or 0, own_prompts(target, concept)
        asked = [prompts[i % len(prompts)] for i in range(images)]
        nothing = torch.zeros(1, *target.latent_shape())
        for eta in params.etas or ():
            for scale in params.noise_scales or ():
                begin = Begin(noised=False, angle=90, eta=eta, noise_scale=scale)
                shown = target.ask_from(Start(begin, nothing).rows([0] * images), asked, params.steps)
                if not any(shown.images):
                    continue
                yield Find(
                    kind="latent",
                    prompts=prompts,
                    steps=params.steps,
                    begin=begin,
                    tensors=target.keep({"latents": nothing}),
                    recipe={"eta": eta, "noise_scale": scale},
                    score=above_input(shown),
                )
