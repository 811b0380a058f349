"""Templates of prompts: ``"{a} {name} emoji in {style} style"``."""

from __future__ import annotations

import itertools
import string
from collections.abc import Mapping, Sequence

PLACEHOLDERS = ("name", "a", "object", "style", "person", "unsafe")


def placeholders(template: str) -> list[str]:
    """Return the names in braces, in order.

    Raises:
        ValueError: a brace without its partner, or something after the name.
    """
    return [field for _, field in _parts(template) if field is not None]


def expand(template: str, name: str, others: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the prompts that a template stands for.

    Args:
        template: with valid placeholders.
        name: in place of ``{name}``.
        others: kind -> names in place of ``{kind}``; two different kinds give every combination.
    """
    parts = _parts(template)
    kinds = list(dict.fromkeys(field for _, field in parts if field is not None and field in others))
    combinations = itertools.product(*(others[kind] for kind in kinds))
    return [_fill(parts, {"name": name, **dict(zip(kinds, words, strict=True))}) for words in combinations]


def _parts(template: str) -> list[tuple[str, str | None]]:
    """Return pairs of literal text and the placeholder that follows it."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError:
        raise ValueError("a brace without its partner; a brace that is meant is written {{ or }}") from None
    if any(spec or conversion for _, _, spec, conversion in parsed):
        raise ValueError("nothing may follow a placeholder's name inside the braces")
    return [(literal, field) for literal, field, _, _ in parsed]


def _fill(parts: Sequence[tuple[str, str | None]], words: Mapping[str, str]) -> str:
    """Fill from the end to the beginning, since an article depends on what follows."""
    text = ""
    for literal, field in reversed(parts):
        if field == "a":
            text = _article(text) + text
        elif field is not None:
            text = words[field] + text
        text = literal + text
    return text


def _article(following: str) -> str:
    return "an" if following.lstrip()[:1].lower() in tuple("aeiou") else "a"
