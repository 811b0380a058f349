"""Intervals as horizontal bars: where everything lies on the axis, in percent of its length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from publisher.api import CheckRecord, Interval
from publisher.report.wording import bounds, figure, unbounded

ROOM = 0.04
"""Part of the numbers' spread that stays free beyond them, so that a gate at the edge can be seen."""


@dataclass(frozen=True)
class Axis:
    """A scale from ``start`` to ``end``, in the unit of the check."""

    start: float
    end: float
    unit: str

    def at(self, value: float) -> float:
        """Place of a value in percent of the axis; what lies outside is put at the end."""
        place = 100 * (value - self.start) / (self.end - self.start)
        return round(min(max(place, 0.0), 100.0), 3)

    def ticks(self) -> list[tuple[float, str]]:
        """Place and label of five marks."""
        values = [self.start + (self.end - self.start) * part / 4 for part in range(5)]
        return [(25.0 * part, figure(value, self.unit)) for part, value in enumerate(values)]


@dataclass(frozen=True)
class Bound:
    """One bound of the gate."""

    at: float
    label: str
    hard: bool
    """Whether it binds the interval; otherwise it binds the value."""
    forbidden: tuple[float, float]
    """Start and length of the part of the axis that the bound rules out."""


def axis(check: CheckRecord) -> Axis:
    """Return the scale of a check: a share has 0% to 100%, anything else what its numbers need, zero included."""
    found = check.measurement
    intervals = [interval for interval in (found.hardened, found.base) if interval] if found else []
    return _axis([*bounds(check.gate), *_ends(intervals, check.unit)], check.unit)


def concept_axis(check: CheckRecord) -> Axis:
    """Return the scale of a check's numbers of single concepts, whose intervals are wide, as few images give them."""
    found, unit = check.measurement, check.concept_unit or check.unit
    intervals = list(found.by_concept.values()) if found else []
    gate = bounds(None if check.concept_figure else check.gate)
    return _axis([*gate, *_ends(intervals, unit)], unit)


def _axis(numbers: Sequence[float], unit: str) -> Axis:
    values = [0.0, *numbers]
    low, high = min(values), max(values)
    if unit == "share" and low >= 0 and high <= 1:
        return Axis(0.0, 1.0, unit)
    margin = ROOM * (high - low or 1.0)
    low, high = low - margin * (low < 0), high + margin * (high > 0 or low == 0)
    step = _nice((high - low) / 4)
    while (start := math.floor(low / step) * step) + 4 * step < high:
        step = _nice(step * 1.01)
    return Axis(start, start + 4 * step, unit)


def _ends(intervals: Sequence[Interval], unit: str) -> list[float]:
    return [
        end
        for interval in intervals
        for end in (interval.low, interval.value, interval.high)
        if end < interval.high or not unbounded(interval, unit)
    ]


def _nice(step: float) -> float:
    """Return the next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def gate_bounds(check: CheckRecord, scale: Axis) -> list[Bound]:
    """Return the bounds of the check's gate on the axis; none without a gate."""
    gate, unit = check.gate, check.unit
    if gate is None:
        return []
    given = (
        ("\u2264", gate.upper_at_most, True),
        ("\u2265", gate.lower_at_least, True),
        ("\u2264", gate.value_at_most, False),
        ("\u2265", gate.value_at_least, False),
    )
    found = []
    for relation, value, hard in given:
        if value is not None:
            place = scale.at(value)
            forbidden = (place, 100 - place) if relation == "\u2264" else (0.0, place)
            found.append(Bound(place, f"{relation} {figure(value, unit)}", hard, forbidden))
    return found
