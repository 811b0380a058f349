"""From the manifest's concepts to the two sides: which concepts, which captions. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar

from publisher.api import Captions, Concept, Scope, UsageError
from publisher_freeze_mask.params import FreezeMaskParams

T = TypeVar("T")


def choose(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """The illegal concepts, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    chosen = _named("concepts", params.concepts, scope.concepts) if params.concepts else scope.concepts
    if not chosen:
        raise UsageError("there is no concept to make a mask for", hint="Name at least one under 'concepts'.")
    return chosen


def choose_innocents(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """The kept concepts that the innocent side is learned from.

    Raises:
        UsageError: nothing is kept, or a name that no kept concept has.
    """
    if not scope.keep:
        raise UsageError(
            "there is nothing to keep, so nothing says what fine-tuning is to stay possible",
            hint="List concepts under 'keep': a mask that weighs nothing against harm freezes whatever learns best.",
        )
    if isinstance(params.innocents, int):
        return spread(scope.keep, params.innocents)
    return _named("innocents", params.innocents, scope.keep)


def choose_tested(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """The kept concepts that the claims are tested with: none that the mask was learned from, if there are others."""
    learned = {concept.id for concept in choose_innocents(params, scope)}
    others = tuple(concept for concept in scope.keep if concept.id not in learned)
    return spread(others or scope.keep, params.check.innocents)


def spread(items: Sequence[T], count: int) -> tuple[T, ...]:
    """At most ``count`` of them, at even distances, the first among them."""
    if len(items) <= count:
        return tuple(items)
    return tuple(items[i * len(items) // count] for i in range(count))


def captions_of(concept: Concept, kind: Captions, prompts: Sequence[str], rare: str) -> tuple[str, ...]:
    """What somebody writes under images of a concept who calls it so; the prompts themselves where it has no such text.

    Args:
        concept: of the images.
        kind: of caption.
        prompts: one for each image, that the image shows.
        rare: word for ``rare``.
    """
    match kind:
        case "rare":
            return tuple(prompt.replace(concept.name, rare) for prompt in prompts)
        case "synonym" if concept.synonyms:
            words = concept.synonyms
            return tuple(prompt.replace(concept.name, words[i % len(words)]) for i, prompt in enumerate(prompts))
        case "description" if concept.description:
            return (concept.description,) * len(prompts)
        case "empty":
            return ("",) * len(prompts)
    return tuple(prompts)


def _named(field: str, names: Sequence[str], concepts: Sequence[Concept]) -> tuple[Concept, ...]:
    ids = [concept.id for concept in concepts]
    for name in names:
        if name not in ids:
            near = difflib.get_close_matches(name, ids, 1)
            raise UsageError(
                f"{field!r} names {name!r}, which is no concept of that side",
                hint=f"Did you mean {near[0]!r}?" if near else f"They are: {', '.join(ids)}.",
            )
    return tuple(concept for concept in concepts if concept.id in names)
