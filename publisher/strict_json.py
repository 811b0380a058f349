"""JSON from elsewhere, read strictly: what parsers disagree about is refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_JSON_DEPTH = 64
MAX_JSON_ENTRIES = 3_000_000
"""What one document may hold, as :func:`count_entries` counts it. The largest tokenizers in use have two millions."""

SCHEDULER = "scheduler_config.json"


class JsonError(ValueError):
    """Not JSON as we accept it; the message says why."""


def strict_json(data: bytes, entries: int = MAX_JSON_ENTRIES, *, infinite: bool = False) -> Any:
    """Parse JSON without duplicate keys, NaN, infinities, byte order mark or deep nesting.

    Args:
        data: the document.
        entries: what it may hold at most, as :func:`count_entries` counts them.
        infinite: accept ``Infinity`` and ``-Infinity``, which are no JSON.

    Raises:
        JsonError: it is none.
    """
    if (count := count_entries(data)) > entries:
        raise JsonError(f"holds {count} keys and values; at most {entries} are read")
    try:
        constant = _infinity if infinite else _no_constant
        found = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=constant, parse_float=_finite)
    except JsonError:
        raise
    except (ValueError, RecursionError) as error:
        raise JsonError(f"is not JSON: {type(error).__name__}") from None
    if not _shallow(found):
        raise JsonError(f"is nested deeper than {MAX_JSON_DEPTH} levels")
    return found


def strict_configuration(path: str, data: bytes) -> Any:
    """Parse a JSON file of a model's folder by the rules of :func:`strict_json`.

    A scheduler's configuration may say ``-Infinity``: diffusers writes that for ``lambda_min_clipped`` of DPM-Solver,
    and reads it again. Every parser that takes it at all takes it for the same number.

    Args:
        path: POSIX path inside the folder.
        data: the document.

    Raises:
        JsonError: it is none.
    """
    return strict_json(data, infinite=path.rpartition("/")[2] == SCHEDULER)


def count_entries(data: bytes) -> int:
    """Return what parsing a document costs, without parsing it: about 100 bytes of memory for each.

    Every value and every key counts as one, an object as four more. Marks inside of texts count as well.
    """
    return 1 + 4 * data.count(b"{") + data.count(b"[") + data.count(b",") + data.count(b":")


def strict_object(data: bytes, entries: int = MAX_JSON_ENTRIES) -> dict[str, Any]:
    """Parse a JSON object by the rules of :func:`strict_json`.

    Raises:
        JsonError: it is none.
    """
    found = strict_json(data, entries)
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


def _infinity(name: str) -> float:
    return _no_constant(name) if name == "NaN" else float(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonError("holds a number that is too large")
    return value


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
