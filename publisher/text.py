"""Text from elsewhere, made harmless for terminals and Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_MARKUP = str.maketrans({mark: f"\\{mark}" for mark in r"\`*_{}[]#|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def printable(text: str) -> str:
    """Return ``text`` on one line, with control, format and surrogate characters written as escapes."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " " or (character.isprintable() and unicodedata.category(character)[0] != "C"):
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def markdown(text: str) -> str:
    """Return ``text`` as Markdown that shows exactly it: no markup, no HTML, one line."""
    words = printable(text).strip().translate(_MARKUP)
    return re.sub(r"^([-+=]|\d+[.)])", lambda start: f"{start[0][:-1]}\\{start[0][-1]}", words)


def code(text: str) -> str:
    """Return ``text`` as Markdown's code, on one line."""
    return f"`{printable(text).replace('`', chr(39))}`"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; what the cells say is shown, not read as markup."""
    lines = [headings, ["---"] * len(headings), *([markdown(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]
