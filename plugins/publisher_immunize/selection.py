"""From the manifest's concepts to what is trained on: which concepts, which captions. Imports no torch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar

from publisher.api import Captions, Concept, Scope, UsageError
from publisher_immunize.params import ImmunizeParams

T = TypeVar("T")


def choose(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """The concepts to immunise against, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    ids = [concept.id for concept in scope.concepts]
    for name in params.concepts:
        if name not in ids:
            near = difflib.get_close_matches(name, ids, 1)
            raise UsageError(
                f"'concepts' names {name!r}, which is no concept of this step",
                hint=f"Did you mean {near[0]!r}?" if near else f"They are: {', '.join(ids)}.",
            )
    chosen = tuple(concept for concept in scope.concepts if not params.concepts or concept.id in params.concepts)
    if not chosen:
        raise UsageError("there is no concept to immunise against", hint="Name at least one under 'concepts'.")
    return chosen


def choose_kept(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """The kept concepts that give images, spread evenly.

    Raises:
        UsageError: there is none, and a term of the objective needs some.
    """
    if not scope.keep and (params.prior + params.lam + params.mu or "dreambooth" in params.inners):
        raise UsageError(
            "there is nothing to keep, so nothing would protect the rest of the model",
            hint="List concepts under 'keep'; or set prior, lam and mu to 0, and see what is left of the model.",
        )
    return spread(scope.keep, params.keep_concepts)


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
            return tuple(_renamed(prompt, concept, (rare,), i) for i, prompt in enumerate(prompts))
        case "synonym":
            return tuple(_renamed(prompt, concept, concept.synonyms, i) for i, prompt in enumerate(prompts))
        case "description":
            return (concept.description,) * len(prompts) if concept.description else tuple(prompts)
        case "empty":
            return ("",) * len(prompts)
    return tuple(prompts)


def _renamed(prompt: str, concept: Concept, words: Sequence[str], turn: int) -> str:
    return prompt.replace(concept.name, words[turn % len(words)]) if words else prompt


def notes(params: ImmunizeParams, chosen: Sequence[Concept]) -> tuple[str, ...]:
    """What the user should know before it is run; every None of the parameters replaced."""
    size = f"{params.batch} images of each of {len(chosen)} concepts"
    rates = ", ".join(f"{kind} {params.rate(kind):g}" for kind in params.inners)
    found = [f"{params.steps} outer steps of {params.inner_steps} inner; {size}; lr {params.lr:g}, inner: {rates}"]
    if params.objective == "ascend" and params.strength and not params.bound:
        found.append("objective ascend is without bound: long runs destroy the model; set bound, or take hold")
    if "sks" in params.rare:
        found.append("'sks' is what attacks use as their rare word: a test with it would say nothing about others")
    return tuple(found)
