"""Intervals, all 95% and two-sided: the one place that knows the level, the resamples and the methods.

Metrics, those of plugins too, bring their numbers here and compute no interval of their own. What each covers is
simulated at the sizes that manifests use, in ``tests/publisher/builtin/metrics/test_coverage.py``; the figures are in
``docs/explanation/intervals.md``. No torch; numpy and scipy are imported when a number is needed.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from functools import cache
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from publisher.api.metrics import UNBOUNDED, Interval

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[np.float64]]

LEVEL = 0.95
RESAMPLES = 2000
TAIL = (1 - LEVEL) / 2
"""Share beyond each end of an interval."""
Z = 1.959963984540054
"""Quantile of the normal distribution at each end."""
Z_SQUARED = 3.841458820694124
"""Quantile of chi-squared with one degree of freedom: the product ``Z * Z`` is off in its last digit."""
LEAST_TRIALS = 3
"""Least number of trials of a mean: with two, Student's t is 12.7, and the interval says nothing useful."""
_PERCENT = 100 * (1 - LEVEL) / 2


def share(hits: int, n: int, of: int = 1) -> Interval:
    """Return the share ``hits / n`` with its Clopper-Pearson interval.

    Args:
        hits: of n.
        n: observations.
        of: it is the best of so many shares: each end is as far as if all of them had to hold (Bonferroni).

    Raises:
        ValueError: ``n`` is 0, or there are more hits than that.
    """
    if not 0 <= hits <= n or not n:
        raise ValueError(f"there is no share of {hits} in {n}")
    tail = TAIL / of
    low, high = exact_low(hits, n, tail), exact_high(hits, n, tail)
    return Interval(value=hits / n, low=low, high=high, n=n, method=f"Clopper-Pearson 95%{_best_of(of)}")


def difference(hits: int, n: int, others: int, m: int, of: int = 1) -> Interval:
    """Return the difference of two independent shares, ``hits / n - others / m``, with Newcombe's interval.

    R. G. Newcombe, "Interval estimation for the difference between independent proportions", Statistics in Medicine 17
    (1998), method 10: the squared distances of both shares from the ends of their Wilson intervals are added.

    Args:
        hits: of n.
        n: observations, at least 1.
        others: of m, the share that is taken off.
        m: observations, at least 1.
        of: the first share is the best of so many, see :func:`share`.
    """
    z = Z if of == 1 else NormalDist().inv_cdf(1 - TAIL / of)
    (low, high), (floor_low, floor_high) = _wilson(hits, n, z), _wilson(others, m, z)
    first, second = hits / n, others / m
    value = first - second
    down, up = math.hypot(first - low, floor_high - second), math.hypot(high - first, second - floor_low)
    return _rounded(value, value - down, value + up, n, f"Newcombe 95%{_best_of(of)}")


def _wilson(hits: int, n: int, z: float) -> tuple[float, float]:
    middle, spread = hits + z * z / 2, z * math.sqrt(hits * (n - hits) / n + z * z / 4)
    ends = (middle - spread) / (n + z * z), (middle + spread) / (n + z * z)
    return (0.0 if hits == 0 else ends[0]), (1.0 if hits == n else ends[1])


def _best_of(of: int) -> str:
    return f", the best of {of}" if of > 1 else ""


def exact_low(hits: float, n: float, tail: float = TAIL) -> float:
    """Return the lower end of Clopper and Pearson; counts need not be whole.

    Where all are hits, it is a root: the same digits as scipy's, whose import is most of what a plan would cost.
    """
    if hits <= 0 or hits >= n:
        return 0.0 if hits <= 0 else tail ** (1 / n)
    from scipy.special import betaincinv

    return float(betaincinv(hits, n - hits + 1, tail))


def exact_high(hits: float, n: float, tail: float = TAIL) -> float:
    """Return the upper end of Clopper and Pearson; counts need not be whole. See :func:`exact_low`."""
    if hits <= 0 or hits >= n:
        return 1.0 if hits >= n else -math.expm1(math.log(tail) / n)
    from scipy.special import betaincinv

    return float(betaincinv(hits + 1, n - hits, 1 - tail))


def paired_difference(gains: int, losses: int, n: int) -> Interval:
    """Return the difference of two paired shares, ``(gains - losses) / n``, with Tango's score interval.

    T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design", Statistics in Medicine 17 (1998). The interval is every difference that the score test with the
    variance restricted to that difference does not reject; it does not collapse when no pair differs.

    Args:
        gains: pairs whose second member alone is a hit.
        losses: pairs whose first member alone is a hit.
        n: all pairs, at least 1.
    """
    method = "Tango paired score 95%"
    if gains == losses == 0:
        end = Z * Z / (n + Z * Z)
        return Interval(value=0.0, low=-end, high=end, n=n, method=method)
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

    low = -1.0 if value == -1 else brentq(lambda delta: score(delta) - Z, -1.0, value)
    high = 1.0 if value == 1 else brentq(lambda delta: score(delta) + Z, value, 1.0)
    return Interval(value=value, low=min(low, value), high=max(high, value), n=n, method=method)


def median(values: Sequence[float]) -> Interval:
    """Return the median with the distribution-free interval between two order statistics.

    Raises:
        ValueError: fewer than six values: even the smallest and the largest do not cover 95%.
    """
    n = len(values)
    if n < 6:
        raise ValueError(f"{n} images are too few for an interval of the median; at least 6 are needed")
    rank = _rank(n)
    ordered = sorted(values)
    low, high = float(ordered[rank]), float(ordered[n - 1 - rank])
    return Interval(value=quantile(values, 0.5), low=low, high=high, n=n, method="order statistics 95%")


@cache
def _rank(n: int) -> int:
    """Return the largest k with P(X <= k) below the tail, X ~ Binomial(n, 1/2): counted, in whole numbers."""
    every, subsets, counted, k = 2**n, 1, 1, 0
    while counted / every < TAIL:
        subsets = subsets * (n - k) // (k + 1)
        counted += subsets
        k += 1
    return k - 1


def quantile(values: Sequence[float], p: float) -> float:
    """Return the ``p`` quantile, linear between neighbours."""
    ordered = sorted(values)
    place = p * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def widened(interval: Interval, clusters: Sequence[Sequence[float]], purpose: str) -> Interval:
    """Return the interval, widened where the spread between clusters demands it.

    Images of one prompt resemble each other, so the interval of independent images may be too narrow. Whole clusters
    are sampled with replacement, and each end is the farther one of the two intervals. Where no prompt repeats, or
    there is but one, the interval stays as it is.

    Args:
        interval: of the mean over all clusters' values, as if they were independent.
        clusters: the values of each prompt.
        purpose: names the random samples.
    """
    if len(clusters) < 2 or all(len(cluster) == 1 for cluster in clusters):
        return interval
    low, high = _same(clusters) or _bootstrap([(sum(cluster), len(cluster)) for cluster in clusters], purpose)
    method = f"{interval.method}, widened by a bootstrap over {len(clusters)} prompts"
    return interval.model_copy(
        update={"low": min(low, interval.low), "high": max(high, interval.high), "method": method}
    )


def _same(clusters: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Return the one whole number that all values are, twice: each resample has this mean. None: they differ."""
    found = {value for cluster in clusters for value in cluster}
    first = float(next(iter(found)))
    return (first, first) if len(found) == 1 and first.is_integer() else None


def _bootstrap(clusters: Sequence[tuple[float, int]], purpose: str) -> tuple[float, float]:
    samples = random.Random(f"publisher:{purpose}")
    means = sorted(_mean(samples.choices(clusters, k=len(clusters))) for _ in range(RESAMPLES))
    tail = int(RESAMPLES * (1 - LEVEL) / 2)
    return means[tail - 1], means[-tail]


def _mean(clusters: Sequence[tuple[float, int]]) -> float:
    return sum(total for total, _ in clusters) / sum(count for _, count in clusters)


def mean(values: Sequence[float]) -> Interval:
    """Return the mean of independent trials with Student's interval.

    Args:
        values: one for each trial. Where a trial has several concepts, their mean: the interval is about these concepts
            and other trials.

    Raises:
        ValueError: fewer than :data:`LEAST_TRIALS` values.
    """
    return _rounded(*_about_mean(values), len(values), "Student's t over trials 95%")


def geometric_mean(values: Sequence[float]) -> Interval:
    """Return the geometric mean of independent trials' ratios, with Student's interval of their logarithms.

    Args:
        values: one for each trial, above 0.

    Raises:
        ValueError: fewer than :data:`LEAST_TRIALS` values.
    """
    most = math.log(UNBOUNDED)
    value, low, high = (math.exp(min(most, one)) for one in _about_mean([math.log(value) for value in values]))
    return _rounded(value, low, high, len(values), "Student's t over logarithms of trials 95%")


def _about_mean(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of independent values, and both ends of Student's interval."""
    n = len(values)
    if n < LEAST_TRIALS:
        raise ValueError(f"too few trials for an interval: {n}; at least {LEAST_TRIALS} are needed")
    middle = sum(values) / n
    spread = math.sqrt(sum((value - middle) ** 2 for value in values) / (n - 1))
    half = _student(n - 1) * spread / math.sqrt(n)
    return middle, middle - half, middle + half


@cache
def _student(freedom: int) -> float:
    """Return Student's quantile for :data:`LEVEL`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def generator_of(purpose: str) -> np.random.Generator:
    """Return the generator of one bootstrap, PCG64 seeded by its name."""
    import numpy as np

    digest = hashlib.sha256(f"publisher:{purpose}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))


def bootstrapped(value: float, lows: Array, highs: Array, n: int) -> Interval:
    """Return the percentile interval of a number of resampled curves.

    Args:
        value: of the trials as they are.
        lows: resampled values; where one is only known to be larger, its lower bound.
        highs: the same, where one is only known to be larger :data:`UNBOUNDED`.
        n: trials.
    """
    import numpy as np

    low, high = float(np.percentile(lows, _PERCENT)), float(np.percentile(highs, 100 - _PERCENT))
    method = "bootstrap over trials, rates from their Jeffreys posterior, percentile 95%"
    return _rounded(value, min(low, value), max(high, value), n, method)


def widened_to_few(interval: Interval, trials: Sequence[int], most: float = UNBOUNDED) -> Interval:
    """Return a bootstrap's interval with its ends moved away from the value, as far as few trials demand.

    Resampling k trials knows k - 1 of them at most, and treats their spread as known. Both are put right as for a mean:
    by the square root of k / (k - 1), and by Student's quantile in place of the normal one. An end at
    :data:`UNBOUNDED` stays there.

    Args:
        interval: by a bootstrap over trials.
        trials: of each concept; at least two.
        most: the largest value that there can be; the least is 0.

    Raises:
        ValueError: one trial: nothing is known of how trials differ.
    """
    k, freedom = min(trials), sum(trials) - len(trials)
    if k < 2:
        raise ValueError("one trial is too few for an interval; at least 2 are needed")
    factor = _student(freedom) / Z * math.sqrt(k / (k - 1))
    low = max(0.0, interval.value - factor * (interval.value - interval.low))
    high = interval.value + factor * (interval.high - interval.value)
    high = UNBOUNDED if interval.high >= UNBOUNDED else min(high, most)
    return _rounded(interval.value, low, high, interval.n, f"{interval.method}, widened to {k} trials")


def mean_of_images(clusters: Sequence[Sequence[float]], purpose: str) -> Interval:
    """Return the mean over images with Student's interval, widened where the spread between prompts demands it.

    Args:
        clusters: the values of each prompt.
        purpose: names the random samples.

    Raises:
        ValueError: fewer than :data:`LEAST_TRIALS` images.
    """
    values = [value for cluster in clusters for value in cluster]
    if len(values) < LEAST_TRIALS:
        raise ValueError(f"{len(values)} images are too few for an interval; at least {LEAST_TRIALS} are needed")
    plain = mean(values).model_copy(update={"method": "Student's t over images 95%"})
    return widened(plain, clusters, purpose)


def mean_of_pairs(values: Array, clusters: Sequence[int], purpose: str) -> Interval:
    """Return the mean of a number of each two images, with the percentile interval of a bootstrap over prompts.

    Args:
        values: ``(n, n)``, symmetric; the diagonal does not count, nor does an image beside its own copy.
        clusters: number of each image's prompt, from 0. Where no prompt repeats, images are resampled.
        purpose: names the random samples.

    Raises:
        ValueError: fewer than six images.
    """
    import numpy as np

    n = len(values)
    if n < 6:
        raise ValueError(f"{n} images are too few to compare sets; at least 6 are needed")
    off = np.where(np.eye(n, dtype=bool), 0.0, values)
    value = float(off.sum() / (n * (n - 1)))
    prompts = max(clusters) + 1
    which = generator_of(purpose).integers(0, prompts, (RESAMPLES, prompts))
    times = np.stack([np.bincount(row, minlength=prompts) for row in which])[:, list(clusters)].astype(np.float64)
    pairs = times.sum(axis=1) ** 2 - (times**2).sum(axis=1)
    some = pairs > 0
    resampled = ((times @ off) * times).sum(axis=1)[some] / pairs[some]
    low, high = float(np.percentile(resampled, _PERCENT)), float(np.percentile(resampled, 100 - _PERCENT))
    what = f"{prompts} prompts" if prompts < n else "images"
    return _rounded(value, min(low, value), max(high, value), n, f"bootstrap over {what}, percentile 95%")


def rate_of_trials(hits: Sequence[int], images: Sequence[int], purpose: str) -> Interval:
    """Return the share of hits in all images, widened where trials differ more than their images explain.

    Args:
        hits: of each trial; at least two.
        images: of each trial.
        purpose: names the random numbers.

    Raises:
        ValueError: one trial: nothing is known of how trials differ.
    """
    import numpy as np

    exact = share(sum(hits), sum(images))
    which = generator_of(purpose).integers(0, len(hits), (RESAMPLES, len(hits)))
    rates = np.asarray(hits)[which].sum(axis=1) / np.asarray(images)[which].sum(axis=1)
    wide = widened_to_few(bootstrapped(exact.value, rates, rates, exact.n), [len(hits)], most=1.0)
    method = f"{exact.method}, widened by a bootstrap over {len(hits)} trials"
    ends = {"low": min(wide.low, exact.low), "high": max(wide.high, exact.high)}
    return exact.model_copy(update={**ends, "method": method})


def _rounded(value: float, low: float, high: float, n: int, method: str) -> Interval:
    return Interval(value=round(value, 6), low=round(low, 6), high=round(high, 6), n=n, method=method)
