"""Curves as small line charts: where everything lies in the drawing, and the words that say the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from publisher.api import Curve
from publisher.builtin.reports.text import MINUS

WIDTH, HEIGHT = 320, 156
LEFT, RIGHT, TOP, BOTTOM = 46, 304, 8, 124
"""Sides of the plot inside the drawing; around it stand the labels."""
MOST = 400
"""Points of one line; of more every second, third ... is drawn, and the last one."""
SMOOTHED = 40
"""Values of a curve from which on its running mean is drawn over it: losses jump from step to step."""
LOGARITHMIC = 10.0
"""Positive values whose largest is more than this many times the smallest get a logarithmic axis."""


@dataclass(frozen=True)
class Mark:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One curve, ready to be drawn."""

    name: str
    unit: str
    line: str
    """Points as SVG has them."""
    mean: str
    """Points of the running mean; empty for a short curve."""
    end: tuple[float, float]
    """Place of the last point of what is drawn last."""
    across: tuple[Mark, ...]
    up: tuple[Mark, ...]
    log: bool
    """The vertical axis is logarithmic."""
    says: str
    """First, last, lowest and highest value in words."""


def charts(curves: tuple[Curve, ...]) -> list[Chart]:
    """A chart for each curve that has something to draw."""
    return [found for curve in curves if (found := chart(curve)) is not None]


def chart(curve: Curve) -> Chart | None:
    """The chart of one curve; None where there is no point, or the numbers are beyond drawing."""
    points = _thinned(list(zip(curve.x, curve.y, strict=False)))
    if not points or not all(abs(value) < 1e300 for point in points for value in point):
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    log = min(ys) > 0 and max(ys) > LOGARITHMIC * min(ys)
    across = _axis(min(xs), max(xs), LEFT, RIGHT)
    scale: Callable[[float], float] = math.log10 if log else float
    up = _axis(scale(min(ys)), scale(max(ys)), BOTTOM, TOP)
    scaled = [scale(y) for y in ys]
    placed = [(across(x), up(y)) for x, y in zip(xs, scaled, strict=True)]
    mean = [(across(x), up(y)) for x, y in zip(xs, _running_mean(scaled), strict=True)] if len(xs) >= SMOOTHED else []
    marks = _decades(min(ys), max(ys)) if log else _steps(min(ys), max(ys))
    return Chart(
        name=curve.name,
        unit=curve.unit,
        line=_path(placed),
        mean=_path(mean),
        end=_rounded((mean or placed)[-1]),
        across=tuple(Mark(round(across(x), 1), number(x)) for x in _steps(min(xs), max(xs))),
        up=tuple(Mark(round(up(scale(y)), 1), number(y)) for y in marks),
        log=log,
        says=f"{number(ys[0])} at {number(xs[0])}, {number(ys[-1])} at {number(xs[-1])};"
        f" lowest {number(min(ys))}, highest {number(max(ys))}",
    )


def _path(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in map(_rounded, points))


def _rounded(point: tuple[float, float]) -> tuple[float, float]:
    return round(point[0], 1), round(point[1], 1)


def _running_mean(values: list[float]) -> list[float]:
    """Over a twentieth of all values around each; of their logarithms where the axis is logarithmic."""
    half = len(values) // 40
    around = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [math.fsum(some) / len(some) for some in around]


def number(value: float) -> str:
    """Three digits, and an exponent only where it is shorter."""
    if value and not 1e-4 <= abs(value) < 1e6:
        text = f"{value:.2e}"
        digits, _, power = text.partition("e")
        text = f"{digits.rstrip('0').rstrip('.')}e{int(power)}"
    else:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return text.replace("-", MINUS)


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(points) // MOST)
    return points[::stride] + points[-1:] if stride > 1 else points


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From a value to its place; equal ends lie in the middle."""
    if high == low:
        return lambda _value: (start + end) / 2
    return lambda value: start + (end - start) * ((value - low) / (high - low))


def _steps(low: float, high: float) -> list[float]:
    """Three to six round values between the ends."""
    if high == low:
        return [low]
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten between the ends, thinned; with 2 and 5 times them where there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    powers = [10.0**power for power in _range(first, last) if low <= 10.0**power <= high]
    if len(powers) > 2:
        return powers
    found = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    return [value for value in found if low <= value <= high]


def _range(first: int, last: int) -> Iterator[int]:
    return iter(range(first, last + 1, 1 + (last - first) // 6))
