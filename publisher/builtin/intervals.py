"""Intervals, all 95% and two-sided. No torch; scipy is imported when a number is needed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from publisher.api import Interval

LEVEL = 0.95
RESAMPLES = 2000
_Z = 1.959963984540054


def share(hits: int, n: int) -> Interval:
    """The share ``hits / n`` with its Clopper-Pearson interval.

    Raises:
        ValueError: ``n`` is 0.
    """
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(LEVEL, "exact")
    low, high = min(float(found.low), hits / n), max(float(found.high), hits / n)
    return Interval(value=hits / n, low=low, high=high, n=n, method="Clopper-Pearson 95%")


def paired_difference(gains: int, losses: int, n: int) -> Interval:
    """The difference of two paired shares, ``(gains - losses) / n``, with Tango's score interval.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998). The interval is every difference that the score test with the
    variance restricted to that difference does not reject; it does not collapse when no pair differs.

    Args:
        gains: pairs whose second member alone is a hit.
        losses: pairs whose first member alone is a hit.
        n: all pairs, at least 1.
    """
    from scipy.optimize import brentq

    value = (gains - losses) / n

    def score(delta: float) -> float:
        slope = (2 * n - gains + losses) * delta - gains - losses
        root = max(0.0, slope * slope + 8 * n * losses * delta * (1 - delta))
        lost = (math.sqrt(root) - slope) / (4 * n)
        variance = n * (2 * lost + delta * (1 - delta))
        excess = gains - losses - n * delta
        if abs(excess) < 1e-12:
            return 0.0
        return excess / math.sqrt(max(variance, 1e-12))

    low = -1.0 if value == -1 else brentq(lambda delta: score(delta) - _Z, -1.0, value)
    high = 1.0 if value == 1 else brentq(lambda delta: score(delta) + _Z, value, 1.0)
    return Interval(value=value, low=min(low, value), high=max(high, value), n=n, method="Tango paired score 95%")


def median(values: Sequence[float]) -> Interval:
    """The median with the distribution-free interval between two order statistics.

    Raises:
        ValueError: fewer than six values: even the smallest and the largest do not cover 95%.
    """
    from scipy.stats import quantile_test

    if len(values) < 6:
        raise ValueError(f"{len(values)} images are too few for an interval of the median; at least 6 are needed")
    found = quantile_test(list(values), p=0.5).confidence_interval(LEVEL)
    middle, low, high = quantile(values, 0.5), float(found.low), float(found.high)
    return Interval(value=middle, low=low, high=high, n=len(values), method="order statistics 95%")


def quantile(values: Sequence[float], p: float) -> float:
    """The ``p`` quantile, linear between neighbours."""
    ordered = sorted(values)
    place = p * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def widened(interval: Interval, clusters: Sequence[Sequence[float]], purpose: str) -> Interval:
    """The interval, widened where the spread between clusters demands it.

    Images of one prompt resemble each other, so the interval of independent images may be too narrow. Whole clusters
    are drawn with replacement, and each end is the farther one of the two intervals. Where no prompt repeats, or there
    is but one, the interval stays as it is.

    Args:
        interval: of the mean over all clusters' values, as if they were independent.
        clusters: the values of each prompt.
        purpose: names the random draws.
    """
    if len(clusters) < 2 or all(len(cluster) == 1 for cluster in clusters):
        return interval
    low, high = _bootstrap([(sum(cluster), len(cluster)) for cluster in clusters], purpose)
    method = f"{interval.method}, widened by a bootstrap over {len(clusters)} prompts"
    return interval.model_copy(
        update={"low": min(low, interval.low), "high": max(high, interval.high), "method": method}
    )


def _bootstrap(clusters: Sequence[tuple[float, int]], purpose: str) -> tuple[float, float]:
    draws = random.Random(f"publisher:{purpose}")
    means = sorted(_mean(draws.choices(clusters, k=len(clusters))) for _ in range(RESAMPLES))
    tail = int(RESAMPLES * (1 - LEVEL) / 2)
    return means[tail - 1], means[-tail]


def _mean(clusters: Sequence[tuple[float, int]]) -> float:
    return sum(total for total, _ in clusters) / sum(count for _, count in clusters)
