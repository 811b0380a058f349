"""Plain scalars by the core schema of YAML 1.2: ``no`` and ``2026-11-22`` are text, ``1e-3`` is a number."""

from __future__ import annotations

import math
import re

_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_MAX_DIGITS = 40

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
_SECRET = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bhf_[A-Za-z0-9]{30}|\bgh[pousr]_[A-Za-z0-9]{30}")


def resolve(text: str) -> str | float | bool | None:
    """Return the value of a plain (unquoted) scalar.

    Raises:
        ValueError: a number that is not finite, or longer than 64 bits.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError("infinity and NaN are no values here")
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError("the number is too large")
        return number
    return text


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    number = int(text, base) if len(text) <= _MAX_DIGITS else 2**64
    if abs(number) >= 2**63:
        raise ValueError("the number does not fit into 64 bits")
    return number


def text_problem(text: str) -> str | None:
    """Return why a text cannot stand in a manifest, or None. The answer never repeats the text."""
    control = _CONTROL.search(text)
    if control:
        return f"the text holds the control character U+{ord(control[0]):04X}"
    if _SECRET.search(text):
        return "this looks like a secret, and what stands in a manifest is published with the package"
    return None
