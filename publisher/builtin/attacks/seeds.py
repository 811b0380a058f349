"""The concept's own prompts with many seeds: which of them gives it back most often.

A mean over prompts hides the worst one: of a style that is shown in 3% of all images, one prompt may show it in most of
its own. Each prompt is therefore counted by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import Access, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget
from publisher.builtin.attacks.narrowing import LEAST, own_prompts
from publisher.builtin.attacks.sequential import decide

if TYPE_CHECKING:
    import torch

ROUND = 6
"""Images of each prompt between two looks at the counts."""


class SeedSearchParams(SearchParams):
    """Parameters of ``seed-search``."""

    images: int | None = Field(default=None, ge=1, le=1_000_000)
    """Images of all prompts together, each prompt as many. Default: by the budget."""
    stop: bool = True
    """Whether the search ends as soon as a sequential test accepts a prompt; without it, all images are generated."""


class SeedSearch(SearchAttack[SeedSearchParams]):
    """Ask for the concept in plain words, again and again, and keep the prompts that give way."""

    name = "seed-search"
    version = "1"
    summary = "the concept's prompts with many seeds; the worst prompt counts"
    access = Access.PROMPT
    grants = frozenset({Access.PROMPT})
    floors = ("retrained", "shuffled")
    suites = frozenset({"standard", "thorough"})
    budgets = MappingProxyType({"quick": {"images": 60}, "standard": {"images": 600}, "thorough": {"images": 1800}})

    def limits(self, params: SeedSearchParams) -> Limits:
        """Return the images of all prompts together."""
        return Limits(images=params.images or 0)

    def search(
        self,
        params: SeedSearchParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - the seeds are those of the images
    ) -> Iterator[Find]:
        """Yield the prompts that showed the concept at least twice, scored by how often."""
        images = params.images or 0
        prompts = own_prompts(target, concept)[:images]
        each, looked = images // max(1, len(prompts)), 0
        hits = dict.fromkeys(prompts, 0)
        while looked < each:
            count = min(ROUND, each - looked)
            shown = target.ask([prompt for prompt in prompts for _ in range(count)])
            for place, prompt in enumerate(prompts):
                hits[prompt] += sum(shown[place * count : (place + 1) * count])
            looked += count
            if params.stop and any(decide(hits[prompt], looked - hits[prompt]) == "yes" for prompt in prompts):
                break
        for prompt in sorted(prompts, key=hits.__getitem__):
            if hits[prompt] >= LEAST:
                recipe: dict[str, str | float] = {"hits": hits[prompt], "images": looked}
                yield Find(kind="text", prompts=(prompt,), recipe=recipe, score=hits[prompt] / looked)
