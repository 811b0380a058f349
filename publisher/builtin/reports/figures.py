"""The numbers of single concepts in a check: their unit, their order, and the change of one in words."""

from __future__ import annotations

from typing import Any

from publisher.api import CheckRecord, Gate, Interval
from publisher.report.wording import figure, span


def unit(check: CheckRecord) -> str:
    """Return the unit of the numbers of single concepts."""
    return check.concept_unit or check.unit


def gate(check: CheckRecord) -> Gate | None:
    """Return the gate that the numbers of single concepts can be compared with; None: there is none."""
    return None if check.concept_figure else check.gate


def worst(check: CheckRecord) -> list[str]:
    """Return the concepts that the metric names as those that lost most; none where it names none."""
    return [name for row in _named(check) if isinstance(name := row.get("concept"), str)]


def by_concept(check: CheckRecord) -> list[tuple[str, Interval]]:
    """Return the numbers of single concepts: those that lost most first, then by name."""
    if check.measurement is None:
        return []
    order = {name: place for place, name in enumerate(worst(check))}
    found = check.measurement.by_concept.items()
    return sorted(found, key=lambda item: (order.get(item[0], len(order)), item[0].casefold()))


def alone(check: CheckRecord, concept: str) -> str:
    """Return the number of one concept in words: ``"3 points (1 points to 5 points), n 40"``; empty without one.

    Where a concept has too few images for an interval, the number of the metric's list stands alone.
    """
    found = check.measurement.by_concept.get(concept) if check.measurement else None
    if found:
        return f"{figure(found.value, unit(check))} ({span(found, unit(check))}), n {found.n:,}"
    row = next((row for row in _named(check) if row.get("concept") == concept), {})
    values = [value for name, value in row.items() if name != "n" and isinstance(value, float)]
    return f"{figure(values[0], unit(check))}, n {row.get('n', '?')}" if values else ""


def _named(check: CheckRecord) -> list[dict[str, Any]]:
    found = check.measurement.details.get("worst") if check.measurement else None
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
