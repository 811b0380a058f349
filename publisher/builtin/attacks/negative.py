"""Negative prompts and guidance: what an image is to be unlike, and how hard it is pushed.

    eps = eps(n) + g (eps(p) - eps(n))

A model that generates something else in a concept's place generates that for the concept's prompt p too. With it as the
negative prompt n the image is pushed away from it, perhaps back to the concept; with nothing as p it is pushed nowhere
else. High guidance g leaves what the scorer knows, so its errors rise: the same search for a kept concept shows that.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from publisher.api import Access, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget
from publisher.builtin.attacks.narrowing import LEAST, own_prompts

if TYPE_CHECKING:
    import torch


class NegativePromptParams(SearchParams):
    """Parameters of ``negative-prompt``."""

    targets: tuple[str, ...] = Field(default=(), max_length=100)
    """Texts of what the model generates in the concept's place, such as ``a pizza emoji``. Each is tried as negative
    prompt. Besides them, a prompt of the kept concept that reads most like the concept always is."""
    guidances: tuple[Annotated[float, Field(ge=0, le=100)], ...] | None = Field(default=None, min_length=1)
    """Guidance scales, each with each negative prompt and with none; at 1 and below a negative prompt does nothing.
    Default: by the budget."""
    images: int | None = Field(default=None, ge=1, le=1000)
    """Images by which the search compares the settings. Default: by the budget."""


class NegativePrompt(SearchAttack[NegativePromptParams]):
    """Ask for the concept and against what has taken its place, at several guidance scales."""

    name = "negative-prompt"
    version = "1"
    summary = "negative prompts of what has taken the concept's place, and guidance scales"
    access = Access.PROMPT
    grants = frozenset({Access.PROMPT})
    floors = ("retrained", "shuffled")
    suites = frozenset({"standard", "thorough"})
    budgets = MappingProxyType(
        {
            "quick": {"guidances": [7.5], "images": 12},
            "standard": {"guidances": [1.0, 3.0, 7.5, 15.0], "images": 24},
            "thorough": {"guidances": [1.0, 3.0, 7.5, 15.0], "images": 60},
        }
    )

    def limits(self, params: NegativePromptParams) -> Limits:
        """Return the images of all settings: of each scale without a negative prompt, and with each two."""
        scales = params.guidances or ()
        against = sum(scale > 1 for scale in scales) * 2 * (len(params.targets) + 1)
        return Limits(images=(params.images or 0) * (len(scales) + against))

    def search(
        self,
        params: NegativePromptParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - the seeds are those of the images
    ) -> Iterator[Find]:
        """Yield the settings that showed the concept at least twice."""
        images, prompts = params.images or 0, own_prompts(target, concept)
        negatives = dict.fromkeys(filter(target.allows, (*params.targets, *target.alternatives()[:1])))
        for guidance in params.guidances or ():
            against = negatives if guidance > 1 else {}
            for asked, negative in [(prompts, ""), *((words, one) for one in against for words in (prompts, ("",)))]:
                hits = sum(target.ask([asked[i % len(asked)] for i in range(images)], negative, guidance))
                if hits >= LEAST:
                    share = hits / images
                    yield Find(kind="text", prompts=asked, negative_prompt=negative, guidance=guidance, score=share)
