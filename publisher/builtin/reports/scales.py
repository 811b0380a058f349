"""Axes of the plots: from values to places, round marks, and numbers in few digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from publisher.report.wording import number

LOGARITHMIC = 10.0
"""Positive values whose largest is more than this many times the smallest get a logarithmic axis."""
LARGEST = 1e300
"""What is beyond cannot be plotted."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """A vertical axis, from the lowest to the highest of some values."""

    place: Callable[[float], float]
    """Map from a value to its place, rounded to a tenth."""
    marks: tuple[Tick, ...]
    log: bool


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """Return a linear axis from ``start`` to ``end``, or a logarithmic one where the values have several magnitudes."""
    log = low > 0 and high > LOGARITHMIC * low
    turn: Callable[[float], float] = math.log10 if log else float
    axis = linear(turn(low), turn(high), start, end)

    def place(value: float) -> float:
        return round(axis(turn(value)), 1)

    values = decades(low, high) if log else steps(low, high)
    return Scale(place, tuple(Tick(place(value), number(value)) for value in values), log)


def linear(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the map from a value to its place; equal ends lie in the middle."""
    if high == low:
        return lambda _value: (start + end) / 2
    return lambda value: start + (end - start) * ((value - low) / (high - low))


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return points as SVG has them."""
    return " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)


def steps(low: float, high: float) -> list[float]:
    """Return three to six round values between the ends."""
    if high == low:
        return [low]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def decades(low: float, high: float) -> list[float]:
    """Return powers of ten between the ends, thinned; with 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = [10.0**power for power in _range(first, last) if low <= 10.0**power <= high]
    if len(powers) > 2:
        return powers
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [value for value in found if low <= value <= high]


def _range(first: int, last: int) -> Iterator[int]:
    return iter(range(first, last + 1, 1 + (last - first) // 6))
