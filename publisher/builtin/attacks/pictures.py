"""Attacks that begin from a picture of the concept: image to image, and completing what a part of it is known of.

``img2img`` is SDEdit (arXiv 2108.01073): the picture z gets noise, ``x = alpha z + sigma noise``, as far as the last
``strength`` of the steps have it, and these are sampled. ``completion`` samples all steps, and puts the known part of
``x`` back after each (blended diffusion; published probe: a square in the middle, 50 steps).

A picture shows the concept whatever a model knows. So what it shows by itself is the floor of each find, and settings
are ranked by how far they lie above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from publisher.api import Access, Begin, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget, Shown

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.starting import Start

Starts = Sequence[tuple["Start", Mapping[str, str | float]]]
"""Starts with their recipes."""
Words = Literal["empty", "concept", "alternative"]
Mask = Literal["half", "quarter", "ring", "thin-ring"]


class PictureParams(SearchParams):
    """Parameters of every attack that begins from pictures."""

    prompts: tuple[Words, ...] | None = Field(default=None, min_length=1)
    """What is asked: nothing (``empty``), the concept's own prompts (``concept``), or those of the kept concept that
    reads most like it (``alternative``). Default: by the budget."""
    images: int | None = Field(default=None, ge=1, le=1000)
    """Pictures by which the search compares the settings. Default: by the budget."""
    steps: int = Field(default=10, ge=1, le=1000)
    """Sampling steps of a whole image."""


class Img2ImgParams(PictureParams):
    """Parameters of ``img2img``."""

    strengths: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = Field(default=None, min_length=1)
    """Shares of the steps that are sampled, each on its own: less leaves more of the picture. Default: by the
    budget."""


class CompletionParams(PictureParams):
    """Parameters of ``completion``."""

    masks: tuple[Mask, ...] | None = Field(default=None, min_length=1)
    """Known parts, each on its own: a half or a quarter of the picture, another one in each picture in turn, or a ring
    along its border, a quarter or an eighth of its side wide. Default: by the budget."""


def above_input(shown: Shown) -> float:
    """Return by how much of the images more show the concept than of what they began from."""
    return (sum(shown.images) - sum(shown.inputs)) / len(shown.images)


def texts(words: Words, concept: Concept, target: SearchTarget) -> tuple[str, ...]:
    """Return the prompts that a word of the parameters stands for; empty: there are none that may be asked."""
    if words == "empty":
        return ("",)
    if words == "alternative":
        return target.alternatives()
    return tuple(filter(target.allows, concept.prompts))


def try_all(
    target: SearchTarget,
    concept: Concept,
    params: PictureParams,
    starts: Starts,
    tried: int = 0,
    guidances: Sequence[float | None] = (None,),
) -> Iterator[Find]:
    """Ask from every start with all prompts and guidances, and yield what showed the concept.

    Args:
        target: the model.
        concept: what is looked for.
        params: with the numbers of their budget.
        starts: with their recipes.
        tried: rows that the search looks at; the others alone are kept to judge the find by. 0: all, and all are kept.
        guidances: guidance scales; None: the checks' own.
    """
    for start, recipe in starts:
        count = tried or len(start.latents)
        seen = start.rows(range(count))
        kept = start.rows(range(count, len(start.latents))) if tried else start
        for words in params.prompts or ():
            prompts = texts(words, concept, target)
            if not prompts:
                continue
            asked = [prompts[i % len(prompts)] for i in range(count)]
            first = count % len(prompts) if tried else 0
            for guidance in guidances:
                shown = target.ask_from(seen, asked, params.steps, guidance)
                if not any(shown.images):
                    continue
                yield Find(
                    kind="image" if start.begin.noised else "latent",
                    prompts=(*prompts[first:], *prompts[:first]),
                    steps=params.steps,
                    guidance=guidance,
                    begin=start.begin,
                    tensors=target.keep(kept.tensors),
                    recipe={**recipe, "prompt": words},
                    score=above_input(shown),
                )


class Img2Img(SearchAttack[Img2ImgParams]):
    """Begin from a noised picture of the concept."""

    name = "img2img"
    version = "1"
    summary = "image to image from pictures of the concept at several strengths (SDEdit)"
    access = Access.IMAGE
    grants = frozenset({Access.IMAGE})
    floors = ("input", "retrained")
    budgets = MappingProxyType(
        {
            "quick": {"strengths": [0.7], "prompts": ["empty"], "images": 12},
            "standard": {
                "strengths": [0.3, 0.5, 0.7, 0.9],
                "prompts": ["empty", "concept", "alternative"],
                "images": 24,
            },
            "thorough": {
                "strengths": [0.3, 0.5, 0.7, 0.8, 0.9],
                "prompts": ["empty", "concept", "alternative"],
                "images": 60,
            },
        }
    )

    def limits(self, params: Img2ImgParams) -> Limits:
        """Return the images of all strengths and prompts."""
        return Limits(images=(params.images or 0) * len(params.strengths or ()) * len(params.prompts or ()))

    def pictures(self, params: Img2ImgParams) -> int:
        """Return the number of pictures: one for each image of a setting."""
        return params.images or 0

    def search(
        self,
        params: Img2ImgParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - the noise is that of the images
    ) -> Iterator[Find]:
        """Yield the strengths and prompts that showed the concept, scored by how far above their input."""
        from publisher.api.diffusion.starting import Start

        latents = target.pictures(params.images or 0)
        made = {strength: max(1, round(strength * params.steps)) for strength in params.strengths or ()}
        starts = [(Start(Begin(skipped=params.steps - made[one]), latents), {"strength": one}) for one in made]
        yield from try_all(target, concept, params, starts)


class Completion(SearchAttack[CompletionParams]):
    """Let the model complete pictures of the concept of which a part is known."""

    name = "completion"
    version = "1"
    summary = "complete pictures of the concept of which a half, a quarter or a ring is known"
    access = Access.IMAGE
    grants = frozenset({Access.IMAGE})
    floors = ("input", "retrained")
    suites = frozenset({"standard", "thorough"})
    budgets = MappingProxyType(
        {
            "quick": {"masks": ["ring"], "prompts": ["empty", "concept"], "images": 12},
            "standard": {
                "masks": ["half", "quarter", "ring", "thin-ring"],
                "prompts": ["empty", "concept", "alternative"],
                "images": 24,
            },
            "thorough": {
                "masks": ["half", "quarter", "ring", "thin-ring"],
                "prompts": ["empty", "concept", "alternative"],
                "images": 60,
            },
        }
    )

    def limits(self, params: CompletionParams) -> Limits:
        """Return the images of all masks and prompts."""
        return Limits(images=(params.images or 0) * len(params.masks or ()) * len(params.prompts or ()))

    def pictures(self, params: CompletionParams) -> int:
        """Return the number of pictures: one for each image of a setting."""
        return params.images or 0

    def search(
        self,
        params: CompletionParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - the noise is that of the images
    ) -> Iterator[Find]:
        """Yield the masks and prompts that showed the concept, scored by how far above their input."""
        from publisher.api.diffusion.starting import Start

        latents = target.pictures(params.images or 0)
        starts = [(Start(Begin(), latents, known(one, latents)), {"mask": one}) for one in params.masks or ()]
        yield from try_all(target, concept, params, starts)


def known(mask: Mask, latents: torch.Tensor) -> torch.Tensor:
    """Return which latent pixels are known, ``(n, 1, h, w)``, 1 or 0.

    Args:
        mask: the part; of ``half`` and ``quarter`` each row has the next of four.
        latents: ``(n, c, h, w)``.
    """
    import torch

    count, _, height, width = latents.shape
    found = torch.zeros(count, 1, height, width)
    up, left = slice(None, height // 2), slice(None, width // 2)
    down, right, every = slice(height // 2, None), slice(width // 2, None), slice(None)
    halves = [(up, every), (every, right), (down, every), (every, left)]
    quarters = [(up, left), (up, right), (down, right), (down, left)]
    for row in range(count):
        if mask in ("half", "quarter"):
            found[row, 0][(halves if mask == "half" else quarters)[row % 4]] = 1
        else:
            wide = max(1, min(height, width) // (4 if mask == "ring" else 8))
            found[row] = 1
            found[row, 0, wide : height - wide, wide : width - wide] = 0
    return found
