"""Curves as small line charts: where everything lies in the plot, and the words that say the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

from publisher.api import Curve
from publisher.builtin.reports.scales import LARGEST, Tick, linear, path, scale, steps
from publisher.report.wording import number

WIDTH, HEIGHT = 320, 156
LEFT, RIGHT, TOP, BOTTOM = 46, 304, 8, 124
"""Sides of the plot inside the plot; around it stand the labels."""
MOST = 400
"""Points of one line; of more every second, third ... is plotted, and the last one."""
SMOOTHED = 40
"""Values of a curve from which on its running mean is plotted over it: losses jump from step to step."""


@dataclass(frozen=True)
class Chart:
    """One curve, ready to be plotted."""

    name: str
    unit: str
    line: str
    """Points of the curve, as SVG has them."""
    mean: str
    """Points of the running mean; empty for a short curve."""
    end: tuple[float, float]
    """Place of the last point of what is plotted last."""
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    log: bool
    """Whether the vertical axis is logarithmic."""
    says: str
    """First, last, lowest and highest value in words."""


def charts(curves: tuple[Curve, ...]) -> list[Chart]:
    """Return a chart for each curve that has something to plot."""
    return [found for curve in curves if (found := chart(curve)) is not None]


def chart(curve: Curve) -> Chart | None:
    """Return the chart of one curve; None where there is no point, or the numbers are beyond plotting."""
    points = _thinned(list(zip(curve.x, curve.y, strict=False)))
    if not points or not all(abs(value) < LARGEST for point in points for value in point):
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    across = linear(min(xs), max(xs), LEFT, RIGHT)
    up = scale(min(ys), max(ys), BOTTOM, TOP)
    placed = [(across(x), up.place(y)) for x, y in points]
    mean = list(zip(map(across, xs), _running_mean([y for _, y in placed]), strict=True)) if len(xs) >= SMOOTHED else []
    return Chart(
        name=curve.name,
        unit=curve.unit,
        line=path(placed),
        mean=path(mean),
        end=(round((mean or placed)[-1][0], 1), round((mean or placed)[-1][1], 1)),
        across=tuple(Tick(round(across(x), 1), number(x)) for x in steps(min(xs), max(xs))),
        up=up.marks,
        log=up.log,
        says=f"{number(ys[0])} at {number(xs[0])}, {number(ys[-1])} at {number(xs[-1])};"
        f" lowest {number(min(ys))}, highest {number(max(ys))}",
    )


def _running_mean(values: list[float]) -> list[float]:
    """Return means over a twentieth of all heights around each: of logarithms where the axis is logarithmic."""
    half = len(values) // 40
    around = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [math.fsum(some) / len(some) for some in around]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    stride = -(-len(points) // MOST)
    return points[::stride] + points[-1:] if stride > 1 else points
