"""Re-learning as plots: the share that is back over training steps, and the held-out loss below it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from publisher.api import CheckRecord
from publisher.builtin.reports.scales import LARGEST, Scale, Tick, path, scale
from publisher.report.relearning import (
    HALF,
    KNOWN,
    ConceptCurves,
    CurvePoint,
    Delay,
    ModelCurve,
    curves_by_concept,
    models_of,
)
from publisher.report.wording import figure, number

WIDTH, HEIGHT, LOSS_HEIGHT = 400, 214, 96
LEFT, RIGHT = 44, 388
TOP, BOTTOM = 10, 178
LOSS_TOP, LOSS_BOTTOM = 8, 74
"""Sides of the two plots inside their plots; around them stand the labels."""
APART = 26
"""Least distance of two labels below an axis."""
SHAPES = {
    "hardened": "m-4,0a4,4 0 1,0 8,0a4,4 0 1,0-8,0z",
    "before": "m-3.5-3.5h7v7h-7z",
    "base": "m0-5l5,5-5,5-5-5z",
    "retrained": "m0-5l4.7,8.4h-9.4z",
    "other1": "m0,5l4.7-8.4h-9.4z",
    "other2": "m-4.5,0h9m-4.5-4.5v9",
    "other3": "m-3.6-3.6l7.2,7.2m0-7.2l-7.2,7.2",
}
"""A model's mark in SVG, plotted around the point that it begins at; they differ without their colours."""
TALLEST = 2.0
"""Share at which the vertical axis ends at the latest; what is above lies on its edge."""
MOST = 60
"""EvaluationSteps of one line."""
BENDS = 4
"""Straight pieces between two evaluation steps."""
MOST_PLOTS = 80
"""Of one page."""


@dataclass(frozen=True)
class Line:
    """One model's curve, ready to be plotted."""

    model: ModelCurve
    style: str
    """Key of :data:`SHAPES` and class in the style sheet."""
    delay: Delay
    mean: str
    """Points of the line, as SVG has them."""
    band: str
    """Outline of the band from the lowest to the highest trial; empty of one trial."""
    marks: str
    """Path of all marks."""
    half: float | None
    """Place on the horizontal axis at which the mean reaches one half; None: it does not."""
    loss: str
    """Points of the loss; empty where it cannot be plotted."""
    says: str
    """The points in words."""


@dataclass(frozen=True)
class CurvePlot:
    """Plot of one concept of one check."""

    concept: str
    full: float
    lines: tuple[Line, ...]
    left_out: tuple[str, ...]
    """Titles of the models for which there is no mark left."""
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    half: float
    """Height of the line at one half."""
    loss: Scale | None
    problems: tuple[str, ...]


def plots(check: CheckRecord, most: int) -> list[CurvePlot]:
    """Return a plot for each concept of a check, ``most`` at most."""
    styles = styles_of(models_of([check]))
    return [_plot(curves, styles) for curves in curves_by_concept(check)[:most]]


def galleries(checks: Sequence[CheckRecord]) -> tuple[list[list[CurvePlot]], list[int]]:
    """Return the plots of each check, :data:`MOST_PLOTS` in all, and how many of each are missing."""
    found: list[list[CurvePlot]] = []
    for check in checks:
        found.append(plots(check, MOST_PLOTS - sum(map(len, found))))
    missing = [len(curves_by_concept(check)) - len(some) for check, some in zip(checks, found, strict=True)]
    return found, missing


def styles_of(models: Sequence[str]) -> dict[str, str]:
    """Return the style of each model; the same for the whole check. Models beyond the last style have none."""
    free = iter([name for name in SHAPES if name not in KNOWN])
    found = {model: model if model in KNOWN else next(free, "") for model in models}
    return {model: style for model, style in found.items() if style}


def _plot(curves: ConceptCurves, styles: dict[str, str]) -> CurvePlot:
    plotted = [model for model in curves.models if model.name in styles and model.points]
    across, up = _across(plotted), _up(plotted)
    loss = _losses(plotted)
    return CurvePlot(
        concept=curves.concept,
        full=curves.full,
        lines=tuple(_line(model, styles[model.name], across, up, loss) for model in plotted),
        left_out=tuple(model.title for model in curves.models if model.name not in styles),
        across=_step_marks(sorted({point.step for model in plotted for point in model.points}), across),
        up=tuple(Tick(round(up(value), 1), figure(value, "share")) for value in _shares(plotted)),
        half=round(up(HALF), 1),
        loss=loss,
        problems=curves.problems,
    )


def _line(
    model: ModelCurve, style: str, across: Callable[[float], float], up: Callable[[float], float], loss: Scale | None
) -> Line:
    points = model.points[:: -(-len(model.points) // MOST)]
    fine = [between for some in pairwise(points) for between in _between(*some)] + list(points[-1:])
    places = [(across(point.step), up(point.mean)) for point in points]
    ends = [(across(p.step), up(p.high)) for p in fine] + [(across(p.step), up(p.low)) for p in reversed(fine)]
    delay = model.delay()
    return Line(
        model=model,
        style=style,
        delay=delay,
        mean=path((across(p.step), up(p.mean)) for p in fine),
        band=path(ends) if len(model.trials) > 1 else "",
        marks="".join(f"M{place.replace(',', ' ')}{SHAPES[style]}" for place in path(places).split()),
        half=None if delay.mean is None else round(across(delay.mean), 1),
        loss=path((across(p.step), loss.place(p.loss)) for p in points) if loss else "",
        says=", ".join(f"{figure(p.mean, 'share')} at {number(p.step)}" for p in points),
    )


def _between(start: CurvePoint, end: CurvePoint) -> list[CurvePoint]:
    """Return a few points of a straight line over the steps, which is bent on the axis; without its end."""
    parts = [part / BENDS for part in range(BENDS)]
    mix = [[a + part * (b - a) for a, b in zip(start.numbers, end.numbers, strict=True)] for part in parts]
    return [CurvePoint(*numbers) for numbers in mix]


def _across(models: Sequence[ModelCurve]) -> Callable[[float], float]:
    """Return the axis of steps: linear up to the first evaluation step, so that 0 has a place, then logarithmic."""
    steps = sorted({point.step for model in models for point in model.points} | {0.0})
    first = steps[1] if len(steps) > 1 else 1
    whole = math.log1p(max(steps[-1], 1) / first)
    return lambda step: LEFT + (RIGHT - LEFT) * math.log1p(step / first) / whole


def _up(models: Sequence[ModelCurve]) -> Callable[[float], float]:
    top = _top(models)
    return lambda share: BOTTOM + (TOP - BOTTOM) * min(max(share / top, 0.0), 1.0)


def _top(models: Sequence[ModelCurve]) -> float:
    highest = max((point.high for model in models for point in model.points), default=1.0)
    return min(max(1.0, highest), TALLEST)


def _shares(models: Sequence[ModelCurve]) -> list[float]:
    return [quarter / 4 for quarter in range(int(4 * _top(models)) + 1)]


def _losses(models: Sequence[ModelCurve]) -> Scale | None:
    found = [point.loss for model in models for point in model.points]
    if not found or not all(abs(value) < LARGEST for value in found):
        return None
    return scale(min(found), max(found), LOSS_BOTTOM - 6, LOSS_TOP)


def _step_marks(steps: Sequence[float], across: Callable[[float], float]) -> tuple[Tick, ...]:
    """Return the evaluation steps, without those whose labels would touch; the last one stays."""
    found: list[Tick] = []
    for step in reversed(steps):
        place = round(across(step), 1)
        if not found or found[-1].at - place >= APART or (step == 0 and found[-1].at - place >= APART / 2):
            found.append(Tick(place, number(step)))
    return tuple(reversed(found))
