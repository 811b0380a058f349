"""Numbers and foreign text in words, the same in every form of the report."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator

from publisher.api import CheckRecord, Gate, Interval, Measurement, ReleaseReport
from publisher.api.metrics import UNBOUNDED

MINUS = "\u2212"
JOINERS = "\u200c\u200d"
"""Persian and emoji need these two invisible characters."""
ALONE = "without membranes"
"""What is said of a check of the weights alone."""
HONOURS = "honours the freeze mask"
"""What is said of an attacker who leaves alone what a package freezes."""
SUFFIXES = {"share": "%", "times": "x"}
"""What is written right behind a number of a unit; other units follow after a space."""


def visible(text: str) -> str:
    """Return ``text`` on one line with control, direction and other invisible characters written out.

    What a manifest, a plugin or a stranger's package says must not move the cursor, hide or turn text around.
    """
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode()


def package_folder(report: ReleaseReport) -> str:
    """Return the name of the package's folder, with nothing that a shell or Python would read otherwise."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", f"{report.name}-{report.version}")


def count(number: int, noun: str) -> str:
    """Return a number with its noun: ``"1 check"``, ``"1,440 checks"``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def short(digest: str) -> str:
    """Return the first twelve digits of a digest, enough to tell two apart by eye."""
    return visible(digest[:12])


def size(amount: int) -> str:
    """Return bytes or parameters with three digits: ``"859 M"``."""
    scaled = float(amount)
    for suffix in ("", " k", " M"):
        if scaled < 999.5:
            return f"{scaled:.3g}{suffix}"
        scaled /= 1000
    return f"{scaled:,.4g} G"


def number(value: float) -> str:
    """Return three digits, and an exponent only where it is shorter."""
    if value and not 1e-4 <= abs(value) < 1e6:
        text = f"{value:.2e}"
        digits, _, power = text.partition("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", MINUS)


def bounds(gate: Gate | None) -> tuple[float, ...]:
    """Return every bound of a gate."""
    if gate is None:
        return ()
    given = (gate.value_at_most, gate.value_at_least, gate.upper_at_most, gate.lower_at_least)
    return tuple(bound for bound in given if bound is not None)


def figure(value: float, unit: str, gate: Gate | None = None) -> str:
    """Return a value with its unit, with as many digits as keep it on its side of the gate's bounds.

    Shares are written in percent, differences of shares in points, ratios as ``"6.2x"``: 0.1004 against a bound of 0.1
    is ``"10.04%"``, not ``"10%"``.
    """
    factor = 100 if unit in ("share", "points") else 1
    suffix = SUFFIXES.get(unit, f" {visible(unit)}".rstrip())
    limits = bounds(gate)
    text = next(text for text in _roundings(value * factor) if _same_side(float(text), value * factor, limits, factor))
    return text.replace("-", MINUS) + suffix


def _roundings(value: float) -> Iterator[str]:
    """Yield decimals, the shortest first, two digits that count at least; none shows something as nothing."""
    first = 1 if abs(value) >= 1 or value == 0 else max(2, 1 - math.floor(math.log10(abs(value))))
    for places in range(first, max(10, first + 1)):
        text = f"{value:.{places}f}".rstrip("0").rstrip(".")
        if value == 0 or float(text) != 0:
            yield text.removeprefix("-") if value == 0 else text
    yield repr(value)


def _same_side(rounded: float, value: float, limits: tuple[float, ...], factor: float) -> bool:
    def sides(number: float) -> list[tuple[bool, bool]]:
        return [(number > limit * factor, number < limit * factor) for limit in limits]

    return sides(rounded) == sides(value)


def known_errors(measurement: Measurement) -> str:
    """Return how well the scorer is known that a number was corrected for, and from what.

    Such as ``"sensitivity at least 94% by 60 images of the base model"``, of the concept that is known least.
    """
    found = measurement.details.get("errors")
    entries = [found] if isinstance(found, dict) and "sensitivity" in found else list((found or {}).values())
    known = [one for one in entries if isinstance(one, dict) and isinstance(one.get("sensitivity"), dict)]
    try:
        least = min(known, key=lambda one: float(one["sensitivity"]["low"]))
        low, n, source = float(least["sensitivity"]["low"]), int(least["sensitivity"]["n"]), str(least["source"])
    except (KeyError, TypeError, ValueError):
        return ""
    whose = f"images of {visible(source)}" if source else "images of the base model"
    j = least.get("j")
    with_alarms = f" (with specificity, less 1: {number(j)})" if isinstance(j, float) and math.isfinite(j) else ""
    return f"sensitivity at least {figure(low, 'share')}{with_alarms} by {n} {whose}"


def span(interval: Interval, unit: str, gate: Gate | None = None) -> str:
    """Return the ends of an interval: ``"0.4% to 6%"``; ``"3.9x or more"``."""
    if unbounded(interval, unit):
        return f"{figure(interval.low, unit, gate)} or more"
    return f"{figure(interval.low, unit, gate)} to {figure(interval.high, unit, gate)}"


def unbounded(interval: Interval, unit: str) -> bool:
    """Return whether the upper end stands for all numbers: the training steps that were tried did not suffice."""
    return unit in ("steps", "times") and interval.high >= UNBOUNDED


def estimate(check: CheckRecord) -> str:
    """Return the hardened model's number: ``"1.4%"``; ``"at least 6.2x"``; ``"not measured"``."""
    if check.measurement is None:
        return "not measured"
    value = figure(check.measurement.hardened.value, check.unit, check.gate)
    return f"at least {value}" if check.measurement.details.get("censored") is True else value


def looks(found: Measurement) -> str:
    """Return what n counts: ``"60 of 6 prompts"``; ``"3"`` where it counts no images."""
    n = f"{found.hardened.n:,}"
    return n if found.prompts is None else f"{n} of {count(found.prompts, 'prompt')}"


def gate_words(gate: Gate | None, unit: str) -> str:
    """Return the bounds in words: ``"upper bound ≤ 10%"``; ``"no gate"`` where there are none."""
    if gate is None:
        return "no gate"
    parts = {
        "upper bound \u2264": gate.upper_at_most,
        "lower bound \u2265": gate.lower_at_least,
        "value \u2264": gate.value_at_most,
        "value \u2265": gate.value_at_least,
    }
    return " and ".join(f"{words} {figure(bound, unit)}" for words, bound in parts.items() if bound is not None)
