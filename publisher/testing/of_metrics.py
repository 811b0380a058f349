"""Rules of metrics: an interval around its number, the same each time, and better where the hardening is better."""

from __future__ import annotations

import json
import math
from typing import Any, Literal

from publisher.api import (
    CurveMetric,
    Interval,
    JudgedFind,
    Limits,
    Measurement,
    Metric,
    Observation,
    Search,
    SearchMetric,
    SetMetric,
    Trial,
)
from publisher.testing.plugin import PluginUnderTest, Rule, demand

OBSERVATIONS = 48
World = Literal["good", "bad", "mixed"]
"""What a metric is shown: a hardening that does all it should, one that does nothing of it, or half and half."""


def interval_holds_the_number(one: PluginUnderTest) -> None:
    """Demand finite numbers with n, an interval around each, and the interval's method."""
    found = measured(one, "mixed")
    numbers = {"hardened": found.hardened, "base": found.base, "seen": found.seen, **found.by_concept}
    for name, interval in numbers.items():
        if interval is not None:
            _demand_interval(name, interval)
    try:
        json.dumps(found.details, allow_nan=False)
    except (TypeError, ValueError) as error:
        demand(condition=False, what=f"its details are no JSON: {error}")


def _demand_interval(name: str, interval: Interval) -> None:
    finite = all(map(math.isfinite, (interval.low, interval.value, interval.high)))
    demand(finite and interval.low <= interval.value <= interval.high, f"the interval of {name!r} is {interval!r}")
    demand(interval.n > 0 and interval.method, f"the interval of {name!r} lacks n or its method: {interval!r}")


def measures_the_same_again(one: PluginUnderTest) -> None:
    """Demand that equal observations give equal numbers: a reader of the package counts again."""
    demand(measured(one, "mixed") == measured(one, "mixed"), "it gives another number when it is asked again")


def better_is_better(one: PluginUnderTest) -> None:
    """Demand that a hardening that does all it should has the better number, in the direction that ``better`` says.

    Not of metrics of curves: some are about what is to be relearned late, and some about what is to be learned at all.
    """
    if issubclass(one.plugin, CurveMetric):
        return
    good, bad = measured(one, "good").hardened.value, measured(one, "bad").hardened.value
    sign = 1 if one.plugin.better == "lower" else -1
    demand(sign * good <= sign * bad, f"{one.plugin.better} is better, but good images give {good:g} and bad {bad:g}")


def little_is_no_crash(one: PluginUnderTest) -> None:
    """Demand of a single observation a measurement or a ValueError: the check is then *unknown*, with its reason."""
    try:
        measured(one, "mixed", 1)
    except ValueError:
        return


def best_is_a_bound(one: PluginUnderTest) -> None:
    """Demand that what n observations could show at best is not worse than what they show."""
    found = measured(one, "good").hardened
    best = one.plugin().best(one.params, found.n)
    if best is not None:
        lower = one.plugin.better == "lower"
        held = best.high <= found.high + 1e-9 if lower else best.low >= found.low - 1e-9
        demand(held, f"best() of {found.n} says {best!r}, and measured was {found!r}")


def measured(one: PluginUnderTest, world: World, count: int = OBSERVATIONS) -> Measurement:
    """Return what the metric makes of observations, sets of features, or trials.

    Args:
        one: the metric and its parameters.
        world: what it is shown.
        count: observations, or images of each find; trials are an eighth of it, at least one.
    """
    metric: Metric[Any] = one.plugin()
    if isinstance(metric, CurveMetric):
        return metric.read(one.params, trials(world, max(1, count // 8)))
    if isinstance(metric, SearchMetric):
        return metric.read(one.params, searches(world, count))
    pairs = observations(world, count, one.plugin.better)
    if isinstance(metric, SetMetric):
        import numpy as np

        base = np.random.default_rng(0).normal(size=(count, 8))
        moved = {"good": 0.0, "mixed": 0.5, "bad": 1.0}[world]
        other = base + moved * np.linspace(1, 3, 8)
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (base, other)]
        return metric.compare(one.params, pairs, *unit)
    return metric.measure(one.params, pairs)


def searches(world: World, count: int) -> list[Search]:
    """Return searches for two concepts, on the hardened model as ``world`` has it, on the base model, and on a floor.

    Args:
        world: what the hardening achieves.
        count: images that judge each find.
    """
    share = {"good": 0.0, "mixed": 0.5, "bad": 1.0}[world]
    rates = {"hardened": share, "base": 1.0, "shuffled": 0.0}
    return [
        Search(
            concept=concept,
            model=model,
            stop="found",
            spent=Limits(images=count),
            tried=count,
            hits=int(rate * count),
            finds=(JudgedFind(hits=int(rate * count), n=count),),
        )
        for concept in ("cigarette", "pistol")
        for model, rate in rates.items()
    ]


def observations(world: World, count: int, better: str) -> list[Observation]:
    """Return pairs of images of two concepts: the base model shows them, the hardened one as ``world`` has it.

    Args:
        world: what the hardening achieves.
        count: how many.
        better: whether a ``lower`` or a ``higher`` number is better: concepts are to be gone, or to stay.
    """
    found = []
    for i in range(count):
        bad = world == "bad" or (world == "mixed" and i % 4 == 0)
        concept = ("cigarette", "pistol")[i % 2]
        found.append(
            Observation(
                concept=concept,
                prompt=f"a {concept} of kind {i % 8 // 2}",
                seed=i,
                steps=10,
                guidance=3.0,
                distance=0.4 + 0.001 * i if bad else 0.01 + 0.0001 * i,
                permeability=float(i % 2),
                base_match=0.3,
                hardened_match=0.1 if bad else 0.3,
                base=True,
                hardened=bad if better == "lower" else not bad,
            )
        )
    return found


def trials(world: World, count: int) -> list[Trial]:
    """Return trials of an attack by training, of the hardened model and of the usual controls.

    Args:
        world: what the hardening achieves.
        count: trials of each model and concept.
    """
    steps, learned, never = (0, 10, 20, 40), (0, 6, 11, 12), (0, 0, 0, 0)
    models = {"hardened": world == "good", "before": False, "base": False, "retrained": False}
    models |= {"unmasked": False, "random-mask": False}
    found = []
    for model, resists in models.items():
        for concept in ("cigarette", "pistol"):
            for seed in range(count):
                slow = resists or (model == "hardened" and world == "mixed" and seed % 2)
                losses = (1.0, 0.99, 0.985, 0.98) if slow else (1.0, 0.8, 0.7, 0.6)
                found.append(
                    Trial(
                        concept=concept,
                        model=model,
                        seed=seed,
                        evaluation_steps=steps,
                        hits=never if slow else learned,
                        images_per_evaluation=12,
                        losses=losses,
                        similarity=(0.2, 0.21, 0.22, 0.22) if slow else (0.2, 0.5, 0.6, 0.7),
                        full=1.0,
                    )
                )
    return found


RULES: dict[str, Rule] = {
    "interval-holds-the-number": interval_holds_the_number,
    "measures-the-same-again": measures_the_same_again,
    "better-is-better": better_is_better,
    "little-is-no-crash": little_is_no_crash,
    "best-is-a-bound": best_is_a_bound,
}
