"""Attacks: how a concept can be got out of a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar
from zlib import crc32

from pydantic import Field

from publisher.api.concepts import Concept
from publisher.api.params import Params
from publisher.api.steps import P, Parametrised


class Access(StrEnum):
    """What an attacker needs to have, the least first. The first table of the report has one row for each."""

    PROMPT = "prompt"
    """The model answers prompts: a hosted service is enough."""
    SEARCH = "search"
    """The model answers as many prompts as a program tries, and the program sees the images."""
    IMAGE = "image"
    """The model also takes images to start from (image to image, inpainting), or the sampler's noise and steps."""
    EMBEDDING = "embedding"
    """The weights can be read, and vectors in place of words are learned; no weight changes."""
    ADAPTER = "adapter"
    """A small file of further weights is trained, or taken from others, and put beside the model's own."""
    TRAINING = "training"
    """The model's own weights are trained."""
    BASE = "base"
    """The weights of the base model are at hand too, in part or in full."""


class ImageRequest(Params):
    """One image to generate. Equal requests give equal images; base and hardened model get the same ones."""

    concept: str
    """Id of the concept that it asks for."""
    prompt: str
    """May be empty."""
    negative_prompt: str = ""
    seed: int = Field(ge=0, lt=2**63)
    """Of the initial noise, sampled on the CPU."""
    steps: int = Field(ge=1, le=1000)
    """Sampling steps."""
    guidance: float = Field(ge=0)
    """Classifier-free guidance scale."""


KEPT_IMAGES = 150
"""Images of all kept concepts together, where a manifest names no number for each."""


class Sampling(Params):
    """How the checks generate images: the manifest's ``evaluate.sampling``."""

    steps: int = Field(default=20, ge=1, le=1000)
    """Sampling steps of the model's own scheduler."""
    guidance: float = Field(default=7.5, ge=0)
    """Classifier-free guidance scale."""
    images: int = Field(default=60, ge=1, le=100_000)
    """Images for each concept and check, spread evenly over its prompts."""
    kept_images: int | None = Field(default=None, ge=1, le=100_000)
    """Images for each kept concept and check; default: 150 are shared out among all, at least
    one and at most ``images`` each; what is left over goes to those that read most like what is to go."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """First of the images' seeds."""

    def for_kept(self, kept: int, place: int = 0) -> Sampling:
        """Return the sampling as an attack on a kept concept sees it.

        Args:
            kept: number of kept concepts.
            place: of this one in their order, from 0: the first ones get what is left over when images are shared out.
        """
        share, rest = divmod(KEPT_IMAGES, max(kept, 1))
        shared = max(1, share + (place < rest))
        return self.model_copy(update={"images": self.kept_images or min(self.images, shared)})

    def leaves_some_over(self, kept: int) -> bool:
        """Return whether the order of the kept concepts says which of them get one image more.

        Args:
            kept: number of kept concepts.
        """
        return self.for_kept(kept, 0) != self.for_kept(kept, kept - 1)


def spread_requests(
    concept: Concept,
    prompts: Sequence[str],
    sampling: Sampling,
    guidances: Sequence[float] = (),
    *,
    first: int | None = None,
) -> tuple[ImageRequest, ...]:
    """Return ``sampling.images`` requests over the prompts, and over the guidance scales where several are given.

    Images of one prompt with several seeds are not independent, least of all for a model that knows its training images
    nearly by heart. So prompts vary first and seeds last: every prompt is used once before one is used again. Concepts
    begin at different prompts, so that a few images of each of many concepts vary in everything.

    Request ``i`` has the prompt ``first + i mod n`` and the seed ``sampling.seed + i``: no seed is used twice. With
    several scales, each prompt goes through all of them, each prompt from another one on.

    Args:
        concept: what is asked for.
        prompts: in the order of use; none gives no request, and a repeated one counts once.
        sampling: how many, with how many steps, and the first seed.
        guidances: guidance scales; default the sampling's own.
        first: place of the first request's prompt; default: made from the concept's id.
    """
    prompts = tuple(dict.fromkeys(prompts))
    scales = tuple(guidances) or (sampling.guidance,)
    if not prompts:
        return ()
    first = crc32(concept.id.encode()) if first is None else first
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


class Attack(Parametrised[P], ABC):
    """A way to ask for a concept.

    Attributes:
        name: what a check calls it.
        version: raise it when the requests change, or the access.
        summary: one line for ``publisher plugins`` and the report.
        access: what the attacker needs to have: the most that any parameters ask for. Every attack has to say it.
        names_concept: whether what is asked depends on the concept. The empty prompt is the same for all of them.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""
    access: ClassVar[Access]
    names_concept: ClassVar[bool] = True

    @abstractmethod
    def requests(self, params: P, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        """Return the images to generate for one concept, in a fixed order. Called without torch, by plans too.

        An empty result (a concept without synonyms, say) makes the check *unknown*, never *passed*.
        """
