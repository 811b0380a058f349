"""JSON from elsewhere, read strictly: what parsers disagree about is refused."""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_JSON_DEPTH = 64


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
