"""Text from elsewhere, made harmless for terminals and Markdown."""

from __future__ import annotations

import re
import unicodedata

_MARKUP = str.maketrans({mark: f"\\{mark}" for mark in r"\`*_{}[]#|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


def printable(text: str) -> str:
    """``text`` on one line, with control, format and surrogate characters written as escapes."""
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character == " " or (character.isprintable() and unicodedata.category(character)[0] != "C"):
        return character
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def markdown(text: str) -> str:
    """``text`` as Markdown that shows exactly it: no markup, no HTML, one line."""
    words = printable(text).strip().translate(_MARKUP)
    return re.sub(r"^([-+=]|\d+[.)])", lambda start: f"{start[0][:-1]}\\{start[0][-1]}", words)
