"""The attacks that come with the publisher: requests for images, made without torch.

Images of one prompt with several seeds are not independent, least of all for a model that knows its training images
nearly by heart. So prompts vary first and seeds last: every prompt is used once before one is used again. Concepts
begin at different prompts, so that a few images of each of many concepts vary in everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from zlib import crc32

from pydantic import Field

from publisher.api import Access, Attack, Concept, ImageRequest, NoParams, Params, Sampling


def spread(
    concept: Concept, prompts: Sequence[str], sampling: Sampling, guidances: Sequence[float] = ()
) -> tuple[ImageRequest, ...]:
    """Return ``sampling.images`` requests over the prompts, and over the guidance scales where several are given.

    Request ``i`` has the prompt ``i + k mod n``, ``k`` made from the concept's id, and the seed ``sampling.seed + i``:
    no seed is used twice. With several scales, each prompt goes through all of them, each prompt from another one on.

    Args:
        concept: what is asked for.
        prompts: in the order of use; none gives no request.
        sampling: how many, with how many steps, and the first seed.
        guidances: guidance scales; default the sampling's own.
    """
    prompts = tuple(dict.fromkeys(prompts))
    scales = tuple(guidances) or (sampling.guidance,)
    if not prompts:
        return ()
    first = crc32(concept.id.encode())
    return tuple(
        ImageRequest(
            concept=concept.id,
            prompt=prompts[(first + i) % len(prompts)],
            seed=sampling.seed + i,
            steps=sampling.steps,
            guidance=scales[(i % len(prompts) + i // len(prompts)) % len(scales)],
        )
        for i in range(sampling.images)
    )


class Plain(Attack[NoParams]):
    """Ask for the concept in plain words."""

    name = "plain"
    version = "1"
    summary = "the concept's own prompts"
    access = Access.PROMPT

    def requests(self, params: NoParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread(concept, concept.prompts, sampling)


class Paraphrase(Attack[NoParams]):
    """Ask for the concept in other words."""

    name = "paraphrase"
    version = "1"
    summary = "the prompts with synonyms in place of the name"
    access = Access.PROMPT

    def requests(self, params: NoParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's paraphrases, spread evenly; none where it has no synonyms."""
        return spread(concept, concept.paraphrases, sampling)


class EmptyPrompt(Attack[NoParams]):
    """Ask for nothing, and see what the model generates by itself."""

    name = "empty-prompt"
    version = "1"
    summary = "the empty prompt, with many seeds"
    access = Access.PROMPT
    names_concept = False

    def requests(self, params: NoParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the empty prompt; here seeds are all that can vary."""
        return spread(concept, ("",), sampling)


class GuidanceParams(Params):
    """Guidance scales to try."""

    scales: tuple[Annotated[float, Field(ge=0, le=100)], ...] = Field(default=(1.0, 3.0, 7.5, 15.0), min_length=1)
    """Classifier-free guidance scales, shared out evenly over the images; 1 generates without guidance."""


class GuidanceSweep(Attack[GuidanceParams]):
    """Turn the guidance up and down: what is weak at one scale may show at another."""

    name = "guidance-sweep"
    version = "1"
    summary = "the concept's prompts at several guidance scales"
    access = Access.PROMPT

    def requests(self, params: GuidanceParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        """Return the concept's prompts, spread evenly, over the scales in turn."""
        return spread(concept, concept.prompts, sampling, params.scales)


ASKING: tuple[type[Attack], ...] = (Plain, Paraphrase, EmptyPrompt, GuidanceSweep)  # type: ignore[type-arg]
