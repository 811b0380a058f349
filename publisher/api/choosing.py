"""What steps have in common when they choose from a manifest: concepts by id, some of many, words in texts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from publisher.api.concepts import Concept, split_at_name
from publisher.api.training import Captions
from publisher.errors import UsageError

T = TypeVar("T")
ENDINGS = ("", "s", "es", "'s", "s'")
"""What a plain plural or a genitive adds to a word, and nothing."""


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


def names_in(text: str, concept: Concept, *, plural: bool = False) -> tuple[str, ...]:
    """Return the concept's name and synonyms that stand in a text; see :func:`publisher.api.split_at_name`.

    Args:
        text: such as a prompt.
        concept: whose name and synonyms are looked for.
        plural: whether a plain plural or a genitive counts too.
    """
    endings, folded = ENDINGS if plural else ("",), text.casefold()
    # A look at the letters first: each pattern takes long to compile, and few texts need one.
    near = (one for one in (concept.name, *concept.synonyms) if one.strip() and one.casefold().split()[0] in folded)
    return tuple(name for name in near if any(len(split_at_name(text, name + end)) > 1 for end in endings))


def require_apart(concepts: Iterable[Concept], kept: Iterable[str]) -> None:
    """Refuse prompts to keep that call a concept by its name or a synonym: one training cannot do both.

    Args:
        concepts: that the step trains against.
        kept: prompts to keep.

    Raises:
        UsageError: with the first such prompt and the word in it.
    """
    for concept, prompt, name in _called(concepts, kept, plural=False):
        raise UsageError(
            f"the prompt {prompt!r} has to be kept and says {name!r}, as {concept.id!r} is called, which this step "
            "trains against",
            hint="Remove the prompt from what stays, or a synonym that means other things too from the concept: one "
            "training cannot do both.",
        )


def kept_notes(concepts: Iterable[Concept], kept: Iterable[str]) -> tuple[str, ...]:
    """Return a note for each concept that a prompt to keep calls by a name, a synonym or a plural: it pulls both ways.

    Args:
        concepts: that go.
        kept: prompts to keep.
    """
    found: dict[str, str] = {}
    for concept, prompt, name in _called(concepts, kept, plural=True):
        said = f"the prompt {prompt!r} has to be kept and says {name!r}, as {concept.id!r} is called: if it shows that "
        found.setdefault(concept.id, said + "concept, remove it from what stays")
    return tuple(found.values())


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


def _called(concepts: Iterable[Concept], texts: Iterable[str], *, plural: bool) -> Iterator[tuple[Concept, str, str]]:
    """Yield each concept with each text that calls it so, and the name or synonym that does."""
    texts = tuple(texts)
    for concept in concepts:
        for text in texts:
            for name in names_in(text, concept, plural=plural):
                yield concept, text, name
