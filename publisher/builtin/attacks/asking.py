"""The attacks that ask in words that they have beforehand: requests for images, made without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from publisher.api import Access, Attack, Concept, ImageRequest, NoParams, Params, Sampling, spread_requests


class Plain(Attack[NoParams]):
    """Ask for the concept in plain words."""

    name = "plain"
    version = "1"
    summary = "the concept's own prompts"
    access = Access.PROMPT

    def requests(self, params: NoParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread_requests(concept, concept.prompts, sampling)


class Paraphrase(Attack[NoParams]):
    """Ask for the concept in other words."""

    name = "paraphrase"
    version = "1"
    summary = "the prompts with synonyms in place of the name"
    access = Access.PROMPT

    def requests(self, params: NoParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's paraphrases, spread evenly; none where it has no synonyms."""
        return spread_requests(concept, concept.paraphrases, sampling)


class EmptyPrompt(Attack[NoParams]):
    """Ask for nothing, and see what the model generates by itself."""

    name = "empty-prompt"
    version = "1"
    summary = "the empty prompt, with many seeds"
    access = Access.PROMPT
    names_concept = False

    def requests(self, params: NoParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the empty prompt; here seeds are all that can vary."""
        return spread_requests(concept, ("",), sampling)


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
        return spread_requests(concept, concept.prompts, sampling, params.scales)


ASKING: tuple[type[Attack], ...] = (Plain, Paraphrase, EmptyPrompt, GuidanceSweep)  # type: ignore[type-arg]
