"""Text from elsewhere, made harmless: strict JSON in, escaped terminal and Markdown text out."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any, NoReturn

MAX_JSON_DEPTH = 64
_MARKUP = str.maketrans({mark: f"\\{mark}" for mark in r"\`*_{}[]#|~"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})


class JsonError(ValueError):
    """Not JSON as we accept it; the message says why."""


def strict_json(data: bytes) -> Any:
    """JSON without duplicate keys, NaN, infinities, byte order mark or deep nesting.

    Raises:
        JsonError: it is none.
    """
    try:
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonError(f"is not JSON: {type(error).__name__}") from None
    if not _shallow(found):
        raise JsonError(f"is nested deeper than {MAX_JSON_DEPTH} levels")
    return found


def strict_object(data: bytes) -> dict[str, Any]:
    """A JSON object, by the rules of :func:`strict_json`.

    Raises:
        JsonError: it is none.
    """
    found = strict_json(data)
    if not isinstance(found, dict):
        raise JsonError("is not a JSON object")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("has a key twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise JsonError(f"holds {name}")


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return False


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
