"""The words of the vocabulary, one after the other, in the forms of the concept's prompts.

Images of one prompt and one seed are generated once, whatever they are looked at for: a release that searches for
several concepts whose prompts have the same forms pays for one pass. Where the base model itself shows the concept in
next to none of these prompts, nothing found says nothing, and the check is *unknown*.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import Access, Concept, Find, Limits, SearchAttack, SearchParams, SearchTarget
from publisher.builtin.attacks.narrowing import AGAIN, Row, finds, forms, narrowed, vocabulary

if TYPE_CHECKING:
    import torch


class EnumerationParams(SearchParams):
    """Parameters of ``token-enumeration``."""

    words: int | None = Field(default=None, ge=1, le=1_000_000)
    """Most words that are tried. Of a larger vocabulary those at even distances. Default: by the budget."""
    letters: int | None = Field(default=None, ge=1, le=1000)
    """Letters of the longest word that is tried. Default: by the budget."""
    forms: int | None = Field(default=None, ge=1, le=1000)
    """Forms of the concept's prompts that each word is tried in: the shortest ones. Default: by the budget."""
    images: int | None = Field(default=None, ge=1, le=1000)
    """Images by which each prompt is looked at first. Default: by the budget."""
    again: int | None = Field(default=None, ge=1, le=10_000)
    """Prompts that are looked at again, those with most hits. Default: by the budget."""


class TokenEnumeration(SearchAttack[EnumerationParams]):
    """Try every word that can be typed and that the tokenizer reads as one token."""

    name = "token-enumeration"
    version = "4"
    summary = "the words of the vocabulary in place of the concept's name"
    access = Access.SEARCH
    grants = frozenset({Access.SEARCH})
    floors = ("retrained", "shuffled")
    shuffles = "judge"
    suites = frozenset({"standard", "thorough"})
    budgets = MappingProxyType(
        {
            "quick": {"words": 160, "letters": 2, "forms": 1, "images": 1, "again": 4},
            "standard": {"words": 640, "letters": 1000, "forms": 6, "images": 1, "again": 48},
            "thorough": {"words": 640, "letters": 1000, "forms": 6, "images": 3, "again": 48},
        }
    )

    def limits(self, params: EnumerationParams) -> Limits:
        """Return the images of both looks, if the vocabulary has as many words and the concept as many forms."""
        first = (params.words or 0) * (params.forms or 0) * (params.images or 0)
        return Limits(images=first + (params.again or 0) * AGAIN)

    def search(
        self,
        params: EnumerationParams,
        target: SearchTarget,
        concept: Concept,
        generator: torch.Generator,  # noqa: ARG002 - the list is fixed
    ) -> Iterator[Find]:
        """Yield the prompts that brought the concept back, the best last."""
        words = vocabulary(target, params.letters or 0, params.words)
        ways = sorted(forms(concept), key=lambda form: len("".join(form)))[: params.forms]
        prompts = [f"{before}{word}{after}" for before, after in ways for word in words]
        rows = [Row((prompt,)) for prompt in prompts if target.allows(prompt)]
        yield from finds(*narrowed(target, rows, params.images or 1, params.again or 0))
