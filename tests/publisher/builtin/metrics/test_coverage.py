"""An interval that says 95% covers the truth in 93% or more of 2,000 simulated data sets, at the sizes of manifests.

``python tests/publisher/builtin/metrics/test_coverage.py`` prints the table of ``docs/explanation/intervals.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from publisher.api import CurveMetric, Interval, Trial, intervals
from publisher.api.intervals import mean, median, paired_difference, share, widened
from publisher.builtin.metrics import curve_statistics
from publisher.builtin.metrics.curve_statistics import AgainstParams, area, half_time
from publisher.builtin.metrics.curves import HalfTime, HalfTimeRatio, RelearnedArea, RelearnedLast, RelearnedWorst
from publisher.builtin.metrics.delays import DelayParams, SpecificDelay

pytestmark = pytest.mark.slow

SETS = 2000
LEAST = 0.93
RESAMPLES = 300
"""Of the bootstraps here, in place of 2,000: quick, and if anything it covers less."""

Data = Iterator[tuple[Interval, float]]
"""Intervals of simulated data sets, each with the truth."""


def generator(name: str) -> np.random.Generator:
    return intervals.generator_of(f"coverage of {name}")


def covered(found: Data) -> float:
    hits = [number.low - 1e-6 <= truth <= number.high + 1e-6 for number, truth in found]
    assert len(hits) == SETS
    return sum(hits) / len(hits)


def shares(n: int, p: float) -> Data:
    """Yield intervals of images of one rate."""
    exact = cache(lambda hits: share(hits, n))
    return ((exact(int(hits)), p) for hits in generator(f"share {n} {p}").binomial(n, p, SETS))


def rates_of_prompts(prompts: int, seeds: int, spread: float) -> Data:
    """Yield intervals of the same prompts, some of which bring the concept more often, with new seeds."""
    samples = generator(f"prompts {prompts} {seeds} {spread}")
    rates = np.clip(np.linspace(0.1 - spread, 0.1 + spread, prompts), 0, 1)
    for hits in samples.binomial(1, rates[:, None], (SETS, prompts, seeds)):
        clusters = [[float(hit) for hit in row] for row in hits]
        yield widened(share(int(hits.sum()), hits.size), clusters, "coverage"), float(rates.mean())


def changes(n: int, lost: float, gained: float) -> Data:
    """Yield intervals of pairs of which some are lost and some gained."""
    tango = cache(lambda gains, losses: paired_difference(gains, losses, n))
    samples = generator(f"changes {n} {lost} {gained}").multinomial(n, (gained, lost, 1 - gained - lost), SETS)
    return ((tango(int(gains), int(losses)), gained - lost) for gains, losses, _ in samples)


def medians(n: int) -> Data:
    """Yield intervals of skewed distances."""
    from scipy.stats import gamma

    truth = float(gamma(2).median())
    return ((median([float(v) for v in row]), truth) for row in generator(f"median {n}").gamma(2, size=(SETS, n)))


def means(n: int, spread: float, *, skewed: bool) -> Data:
    """Yield intervals of shares of gains: one a trial, some below 0 where the spread is large."""
    noise = generator(f"mean {n} {spread} {skewed}").standard_normal((SETS, n)) * spread
    values, truth = (0.7 * np.exp(noise), 0.7 * np.exp(spread**2 / 2)) if skewed else (0.7 + 0.7 * noise, 0.7)
    return ((mean([float(v) for v in row]), truth) for row in values)


EVALUATION_STEPS = (0, 8, 16, 32)
"""Of the quickstart."""


def curve(middle: float, speeds: Any) -> Any:
    """Return rates at the evaluation steps of trials with these speeds; 1 is usual: ``(trials, evaluation steps)``."""
    steps = np.maximum(np.asarray(EVALUATION_STEPS, float), 1e-9)
    return 1 / (1 + (middle / (steps * np.asarray(speeds)[:, None])) ** 3)


def relearned(cls: type[CurveMetric[Any]], trials: int, spread: float) -> Data:
    """Yield intervals of trials of 8 images that learn at different speeds; the control learns twice as fast."""
    samples = generator(f"{cls.name} {trials} {spread}")
    middles = {"hardened": 20.0, "before": 10.0}
    many = np.exp(spread * samples.standard_normal(20_000))
    truths = {model: curve(middle, many).mean(axis=0, keepdims=True) for model, middle in middles.items()}
    half = {model: float(half_time(EVALUATION_STEPS, truth)[0][0]) for model, truth in truths.items()}
    truth = {
        "t50": half["hardened"],
        "t50-ratio": half["hardened"] / half["before"],
        "relearned-area": float(area(EVALUATION_STEPS, truths["hardened"])[0]),
    }.get(cls.name, float(truths["hardened"][0, -1]))
    for _ in range(SETS):
        noise = samples.standard_normal((2, trials))
        noise[1] = 0.7 * noise[0] + np.sqrt(1 - 0.7**2) * noise[1]
        found = []
        for (model, middle), row in zip(middles.items(), noise, strict=True):
            hits = samples.binomial(8, curve(middle, np.exp(spread * row)))
            found += [trial("x", model, i, one) for i, one in enumerate(hits)]
        yield cls().read(AgainstParams(), found).hardened, truth


def delays(trials: int, spread: float) -> Data:
    """Yield specific delays of a concept and two innocents, trials of 8 images at speeds that are shared in part."""
    samples = generator(f"specific-delay {trials} {spread}")
    middles = {("gun", "hardened"): 20.0, ("gun", "base"): 10.0}
    middles |= {(name, model): many for name in ("cat", "dog") for model, many in (("hardened", 7.0), ("base", 5.0))}
    many = np.exp(spread * samples.standard_normal(20_000))
    logs = {key: np.log(1 - area(EVALUATION_STEPS, curve(one, many))).mean() for key, one in middles.items()}
    late = {name: logs[name, "hardened"] - logs[name, "base"] for name in ("gun", "cat", "dog")}
    truth = float(np.exp(late["gun"] - (late["cat"] + late["dog"]) / 2))
    params = DelayParams(against="base", innocents=("cat", "dog"))
    for _ in range(SETS):
        shared, found = samples.standard_normal(trials), []
        for (concept, model), middle in middles.items():
            noise = 0.7 * shared + np.sqrt(1 - 0.7**2) * samples.standard_normal(trials)
            hits = samples.binomial(8, curve(middle, np.exp(spread * noise)))
            found += [trial(concept, model, i, one) for i, one in enumerate(hits)]
        yield SpecificDelay().read(params, found).hardened, truth


def trial(concept: str, model: str, number: int, hits: Any) -> Trial:
    return Trial(
        concept=concept,
        model=model,
        seed=number,
        evaluation_steps=EVALUATION_STEPS,
        hits=tuple(map(int, hits)),
        images_per_evaluation=8,
        losses=(0.0,) * len(EVALUATION_STEPS),
        similarity=(),
        full=1.0,
    )


def cases() -> Iterator[tuple[str, Callable[[], Data]]]:
    """Yield every method at the sizes that manifests use."""
    for n, p in product((20, 60), (0.02, 0.1, 0.5)):
        yield f"Clopper-Pearson, n {n}, rate {p:g}", partial(shares, n, p)
    for prompts, seeds, spread in ((6, 10, 0.0), (6, 10, 0.1), (12, 5, 0.1)):
        name = f"rate of {prompts} fixed prompts, {seeds} seeds each, rates {0.1 - spread:g} to {0.1 + spread:g}"
        yield name, partial(rates_of_prompts, prompts, seeds, spread)
    for n, (lost, gained) in product((60, 142), ((0.02, 0.0), (0.05, 0.03), (0.2, 0.1))):
        yield f"Tango, n {n}, {lost:.0%} lost, {gained:.0%} gained", partial(changes, n, lost, gained)
    for n in (6, 60, 142):
        yield f"median, n {n}", partial(medians, n)
    for trials, (spread, skewed) in product((3, 4, 6), ((0.1, False), (0.5, False), (0.3, True))):
        name = f"Student, {trials} trials, spread {spread:.0%}{', skewed' if skewed else ''}"
        yield name, partial(means, trials, spread, skewed=skewed)
    for cls in (HalfTime, HalfTimeRatio, RelearnedArea, RelearnedLast, RelearnedWorst):
        yield f"{cls.name}, 3 trials, speeds apart by 40%", partial(relearned, cls, 3, 0.4)
    for trials, spread in ((3, 0.2), (3, 0.4), (5, 0.4)):
        yield f"specific-delay, {trials} trials, speeds apart by {spread:.0%}", partial(delays, trials, spread)


CASES = dict(cases())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (intervals, curve_statistics):
        monkeypatch.setattr(module, "RESAMPLES", RESAMPLES)
    monkeypatch.setattr(intervals, "share", cache(share))


@pytest.mark.parametrize("name", CASES)
def test_an_interval_covers_what_it_says(name: str) -> None:
    assert covered(CASES[name]()) >= LEAST


if __name__ == "__main__":
    intervals.RESAMPLES = curve_statistics.RESAMPLES = RESAMPLES
    for name, found in CASES.items():
        sys.stdout.write(f"| {name} | {covered(found()):.1%} |\n")
        sys.stdout.flush()
