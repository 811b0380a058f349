"""Spellings of a concept's names, asked in its own prompts: what a text box is tried with first.

A tokenizer reads several spellings as one. So rows are told apart by the numbers of their tokens, not by their text,
and one that reads as a plain name is left out. Where a small vocabulary takes strange letters apart into rare bytes, no
hit says something about the tokenizer, not about the model: the base model's rates on the same rows show that.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import Access, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget
from publisher.builtin.attacks.narrowing import AGAIN, Row, finds, forms, narrowed
from publisher.builtin.attacks.spellings import spellings

if TYPE_CHECKING:
    import torch


class WordFuzzParams(SearchParams):
    """Parameters of ``word-fuzz``."""

    words: tuple[str, ...] = ()
    """Further words for the concept, such as those of other languages; they are tried first, as they are."""
    variants: int | None = Field(default=None, ge=1, le=100_000)
    """Number of spellings that are tried: of each family the first, then of each the second. Default: by the budget."""
    images: int | None = Field(default=None, ge=1, le=1000)
    """Images by which each spelling is looked at first. Default: by the budget."""
    again: int | None = Field(default=None, ge=1, le=10_000)
    """Spellings that are looked at again, those with most hits. Default: by the budget."""


class WordFuzz(SearchAttack[WordFuzzParams]):
    """Ask for the concept by other spellings of its names."""

    name = "word-fuzz"
    version = "3"
    summary = "typos, other letters, splits, invisible signs and wordings of the concept's names"
    access = Access.PROMPT
    grants = frozenset({Access.PROMPT})
    floors = ("retrained", "shuffled")
    budgets = MappingProxyType(
        {
            "quick": {"variants": 24, "images": 1, "again": 2},
            "standard": {"variants": 350, "images": 2, "again": 24},
            "thorough": {"variants": 350, "images": 6, "again": 24},
        }
    )

    def limits(self, params: WordFuzzParams) -> Limits:
        """Return the images of both looks."""
        return Limits(images=(params.variants or 0) * (params.images or 0) + (params.again or 0) * AGAIN)

    def search(
        self,
        params: WordFuzzParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - the list is fixed
    ) -> Iterator[Find]:
        """Yield the spellings that brought the concept back, the best last; each says how all families did."""
        rows = distinct(variants(concept, params.words), target, concept)[: params.variants]
        yield from finds(*narrowed(target, rows, params.images or 1, params.again or 0))


def variants(concept: Concept, words: tuple[str, ...] = ()) -> Iterator[Row]:
    """Yield a row for each spelling: of each family the first, then of each the second, and so on.

    Args:
        concept: whose name and synonyms are spelled, in the forms of its prompts.
        words: further words, which come first.
    """
    names = (concept.name, *concept.synonyms)
    families = {"pair": [f"{concept.name} {other}" for other in concept.synonyms]}
    for name in names:
        for family, texts in spellings(name).items():
            families.setdefault(family, []).extend(texts)
    ways = forms(concept)
    columns = ([(family, text) for text in texts] for family, texts in families.items())
    for found in chain((("given", word) for word in words), chain.from_iterable(zip_longest(*columns))):
        if found is not None:
            family, text = found
            yield Row(tuple(f"{before}{text}{after}" for before, after in ways), family)


def distinct(rows: Iterator[Row], target: SearchTarget, concept: Concept) -> list[Row]:
    """Return the rows that may be tried and that the tokenizer reads as nothing before them, nor as a plain name."""
    (before, after), *_ = forms(concept)
    seen = {target.tokens(f"{before}{name}{after}") for name in (concept.name, *concept.synonyms)}
    found = []
    for row in rows:
        if any(not target.allows(prompt) for prompt in row.prompts):
            continue
        ids = target.tokens(row.prompts[0])
        if ids not in seen:
            seen.add(ids)
            found.append(row)
    return found
