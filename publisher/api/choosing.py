"""What steps have in common when they choose from a manifest: concepts by id, some of many, words under images."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TypeVar

from publisher.api.concepts import Concept, split_at_name
from publisher.api.training import Captions
from publisher.errors import UsageError

T = TypeVar("T")


def named(option: str, ids: Sequence[str], concepts: Sequence[Concept]) -> tuple[Concept, ...]:
    """Return the concepts with these ids, in the manifest's order.

    Args:
        option: that names them, for the message.
        ids: as the option gives them.
        concepts: to choose from.

    Raises:
        UsageError: an id that none of them has; with the nearest one.
    """
    known = [concept.id for concept in concepts]
    for name in ids:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise UsageError(
                f"{option!r} names {name!r}, which is no concept of this step",
                hint=f"Did you mean {near[0]!r}?" if near else f"They are: {', '.join(known)}.",
            )
    return tuple(concept for concept in concepts if concept.id in ids)


def spread(items: Sequence[T], count: int) -> tuple[T, ...]:
    """Return at most ``count`` of them, at even distances, the first among them."""
    if len(items) <= count:
        return tuple(items)
    return tuple(items[i * len(items) // count] for i in range(count))


def captions_of(concept: Concept, kind: Captions, prompts: Sequence[str], rare: str) -> tuple[str, ...]:
    """Return what stands under images of a concept that is called so; the prompts where it has no such text.

    Args:
        concept: of the images.
        kind: of caption.
        prompts: one for each image, that the image shows.
        rare: word for ``rare``.
    """
    match kind:
        case "rare":
            return _renamed(concept, prompts, (rare,))
        case "synonym" if concept.synonyms:
            return _renamed(concept, prompts, concept.synonyms)
        case "description" if concept.description:
            return (concept.description,) * len(prompts)
        case "empty":
            return ("",) * len(prompts)
    return tuple(prompts)


def _renamed(concept: Concept, prompts: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    apart = (split_at_name(prompt, concept.name) for prompt in prompts)
    return tuple(words[i % len(words)].join(texts) for i, texts in enumerate(apart))
