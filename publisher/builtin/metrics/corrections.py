"""Rates corrected for the scorer's errors. A correction may make a claim harder, never easier.

A scorer sees a share q of images, p of them truly show the concept. With sensitivity Se and specificity Sp,
q = p Se + (1 - p) (1 - Sp), and J = Se + Sp - 1. Se and Sp are known from counts alone: s of m images that show the
concept were seen, t of l images that do not were passed over.

* :func:`rate` takes account of what the scorer misses, and gives no credit for its false alarms.
* :func:`change` divides a loss by the lower bound of J: a paired change of q is J times the change of p.
* :func:`rogan_gladen` is the full correction, for the details: it can make a claim easier, so no gate looks at it.

Counts with groups (prompts, folders) are first brought to the smaller number of independent images that has the same
interval. What the upper end covers is enumerated in ``benchmarks/correction.py``; the figures are in
``docs/explanation/corrected-rates.md``. No torch; numpy and scipy are imported when a number is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from publisher.api import Interval, Measurement, ScorerErrors, Tally
from publisher.api.intervals import TAIL, Z_SQUARED, exact_high, exact_low, share, widened

if TYPE_CHECKING:
    from publisher.api.intervals import Array

LEAST_J = 0.5
"""Bound that the lower end of J has to exceed: below it a loss is not known to a factor of two."""
WEAK = 0.8
"""Lower bound of the sensitivity below which a note says what to do."""
MOST_SUMMED = 2000
"""Images up to which a plan adds up terms, one for each, rather than to integrate."""
_POINTS = 200
_EDGE = 1e-12
"""Probability beyond each end of the range that is integrated over."""


def with_rate(measurement: Measurement, errors: Mapping[str, ScorerErrors]) -> Measurement:
    """Return the measurement of a concept's rate, corrected; what the scorer saw is beside it.

    Args:
        measurement: shares of images in which the scorer sees each concept.
        errors: of the scorer, for each of these concepts.

    Raises:
        ValueError: nothing is known of the errors about one of them, or a sheet says that it may see nothing.
    """
    seen = measurement.by_concept
    require_skill({name: errors[name] for name in seen if name in errors})
    known = {name: _known(name, errors) for name in seen}
    n = sum(one.n for one in seen.values())
    value = sum(sensed(one.value, known[name]) * one.n for name, one in seen.items()) / n
    details = {name: _figures(seen[name], known[name]) for name in seen}
    return measurement.model_copy(
        update={
            "hardened": rate(measurement.hardened, list(known.values()), value),
            "seen": measurement.hardened,
            "by_concept": {name: rate(seen[name], [known[name]]) for name in seen},
            "details": {**measurement.details, "errors": details},
            "notes": (
                *measurement.notes,
                *(note for name in seen if (note := _strange(name, seen[name], known[name]))),
                *(note for name in seen if (note := _weak(name, known[name]))),
            ),
        }
    )


def with_change(
    measurement: Measurement,
    errors: Mapping[str, ScorerErrors],
    correct: Callable[[Interval, float], Interval] | None = None,
) -> Measurement:
    """Return the measurement of a change of accuracy, corrected; what the scorer saw is beside it.

    Args:
        measurement: paired changes of the share of images in which the scorer sees what was asked for.
        errors: of the scorer, for each of these concepts.
        correct: :func:`change` by default, or :func:`rise`.

    Raises:
        ValueError: nothing is known of the errors about one of them, or J may be as little as :data:`LEAST_J`.
    """
    correct = correct or change
    known = [_known(name, errors) for name in measurement.by_concept]
    j, alarms = least_j(known), alarms_together(known)
    figures = {
        "source": ", ".join(dict.fromkeys(one.source for one in known if one.source)),
        "sensitivity": bound(seen_together(known)).as_json(),
        "false_alarms": alarms.as_json() if alarms else None,
        "j": round(j, 6),
    }
    return measurement.model_copy(
        update={
            "hardened": correct(measurement.hardened, j),
            "seen": measurement.hardened,
            "by_concept": {name: correct(one, j) for name, one in measurement.by_concept.items()},
            "details": {**measurement.details, "errors": figures},
        }
    )


def require_skill(errors: Mapping[str, ScorerErrors]) -> None:
    """Make sure that no calibration sheet leaves open whether the scorer is better than chance.

    Raises:
        ValueError: one does.
    """
    for name, one in errors.items():
        j = youden(one) if one.source else None
        if j is not None and j <= 0:
            counts = f"{one.seen.hits} of {one.seen.n} seen, {_alarms(one)} false alarms"
            raise ValueError(f"by {one.source} the scorer may be no better than chance about {name!r}: {counts}")


def _alarms(errors: ScorerErrors) -> str:
    return f"{errors.false_alarms.hits} of {errors.false_alarms.n}" if errors.false_alarms else "no"


def _known(name: str, errors: Mapping[str, ScorerErrors]) -> ScorerErrors:
    if name not in errors:
        raise ValueError(f"nothing is known of the scorer's errors about {name!r}")
    return errors[name]


def _sides(errors: ScorerErrors) -> dict[str, Any]:
    alarms = errors.false_alarms if errors.false_alarms and errors.false_alarms.n else None
    return {
        "source": errors.source,
        "sensitivity": bound(errors.seen).as_json(),
        "false_alarms": bound(alarms).as_json() if alarms else None,
    }


def _figures(seen: Interval, errors: ScorerErrors) -> dict[str, Any]:
    """Return what is known of the errors about one concept, and what full correction would give."""
    full = rogan_gladen(seen, errors)
    return {**_sides(errors), "rogan_gladen": full.as_json() if full else "undefined"}


def _strange(name: str, seen: Interval, errors: ScorerErrors) -> str:
    """Return a warning where a scorer sees even less than its own false alarms; empty: it does not."""
    alarms = errors.false_alarms
    if not errors.source or not alarms or not alarms.n or seen.high >= alarms.hits / alarms.n:
        return ""
    return (
        f"the scorer sees {name!r} more rarely than its calibration has false alarms"
        f" ({alarms.hits} of {alarms.n}): the calibration is about other images"
    )


def _weak(name: str, errors: ScorerErrors) -> str:
    """Return what to do where the base model's images say little of the scorer; empty: they say enough."""
    found = bound(errors.seen)
    if errors.source or found.low >= WEAK or found.value >= 1:
        return ""
    return (
        f"the base model's images of {name!r} say only that the scorer sees {100 * found.low:.0f}% or more:"
        " calibrate it, or ask with prompts that the base model follows"
    )


def least_j(errors: Iterable[ScorerErrors]) -> float:
    """Return the lower bound of J of several concepts together.

    Raises:
        ValueError: false alarms were not counted, or it is not above :data:`LEAST_J`.
    """
    known = list(errors)
    alarms = alarms_together(known)
    if alarms is None:
        raise ValueError("nobody knows how often the scorer sees a concept where it is not: there are no other images")
    j = bound(seen_together(known)).low - alarms.high
    if j <= LEAST_J:
        raise ValueError(
            f"sensitivity and specificity of the scorer minus 1 may be as little as {j:.2f}, and more than {LEAST_J:g}"
            " is needed to tell a loss: judge more images, or calibrate the scorer"
        )
    return j


@lru_cache(maxsize=1024)
def bound(tally: Tally) -> Interval:
    """Return the share of a tally with its Clopper-Pearson interval, widened where its groups demand it.

    Raises:
        ValueError: there are no images.
    """
    if not tally.n:
        raise ValueError("there are no images to know the scorer's errors from")
    groups = [[1.0] * hits + [0.0] * (n - hits) for hits, n in tally.groups if n]
    return widened(share(tally.hits, tally.n), groups, "scorer-errors")


def rate(seen: Interval, errors: Sequence[ScorerErrors], value: float | None = None) -> Interval:
    """Return the share of images that show a concept, from the share in which a scorer sees it.

    The upper end u solves, with q ~ Beta(x + 1, n - x) and Se ~ Beta(s, m - s + 1), P(q <= u Se) = 0.975. The lower
    end stays that of what is seen.

    Args:
        seen: share in which the scorer sees it; its interval is already as wide as its prompts demand.
        errors: of every concept among the images; the one that demands most is taken.
        value: the corrected share, where concepts with different errors are together; None: the share that is seen,
            over the sensitivity.
    """
    ends = [_upper(seen, bound(one.seen)) for one in errors]
    values = [_over(seen.value, one.seen) for one in errors] if value is None else [value]
    middle = min(1.0, max(seen.value, *values))
    return seen.model_copy(
        update={
            "value": middle,
            "high": max(seen.high, middle, *ends),
            "method": _corrected(seen),
        }
    )


def _corrected(seen: Interval) -> str:
    return f"{seen.method}, corrected for what the scorer misses"


def sensed(seen: float, errors: ScorerErrors) -> float:
    """Return the share that is seen, over the sensitivity; at most 1."""
    return _over(seen, errors.seen)


def _over(seen: float, tally: Tally) -> float:
    return min(1.0, seen * tally.n / tally.hits) if tally.hits else float(seen > 0)


def best_rate(n: int, errors: Sequence[ScorerErrors]) -> Interval:
    """Return the corrected rate where none of ``n`` images shows the concept: what a plan asks for.

    It is that of :func:`rate` to ten digits. Where the scorer missed nothing, no numerical integral is needed.
    """
    clean = share(0, n)
    if n > MOST_SUMMED or any(one.seen.hits < one.seen.n or not one.seen.n for one in errors):
        return rate(clean, errors)
    ends = [clean_end(n, one.seen.n) for one in errors]
    return clean.model_copy(update={"high": max(clean.high, *ends), "method": _corrected(clean)})


@lru_cache(maxsize=1024)
def clean_end(n: int, m: int) -> float:
    """Return ``upper_end(0, n, m, m)`` without an integral.

    P(q > u Se) is I(n) = E[(1 - u Se)^n], and by parts (m + n) I(n) = m (1 - u)^n + n I(n - 1), I(0) = 1.
    """

    def excess(end: float) -> float:
        above, power = 1.0, 1.0
        for k in range(1, n + 1):
            power *= 1 - end
            above = (m * power + k * above) / (m + k)
        return TAIL - above

    return 1.0 if excess(1.0) <= 0 else _crossing(excess, 0.0, 1.0)


def _upper(seen: Interval, sensitivity: Interval) -> float:
    n, m = _independent(seen, high=True), _independent(sensitivity, high=False)
    return upper_end(seen.value * n, n, sensitivity.value * m, m)


@lru_cache(maxsize=4096)
def upper_end(x: float, n: float, s: float, m: float) -> float:
    """Return the upper end of a rate; see :func:`rate`.

    Args:
        x: images that the scorer sees the concept in; need not be whole.
        n: images.
        s: images of the concept that the scorer sees it in.
        m: images of the concept.
    """
    import numpy as np
    from scipy.special import betainc, betaincinv, betaln, xlog1py, xlogy

    if x >= n or s <= 0:
        return 1.0
    low, high = betaincinv(s, m - s + 1, (_EDGE, 1 - _EDGE))
    points, weights = _nodes()
    sensitivity = low + (high - low) * (points + 1) / 2
    density = np.exp(xlogy(s - 1, sensitivity) + xlog1py(m - s, -sensitivity) - betaln(s, m - s + 1))
    weights = weights * density / (weights @ density)

    def excess(end: float) -> float:
        return float(weights @ betainc(x + 1, n - x, end * sensitivity)) - (1 - TAIL)

    return 1.0 if excess(1.0) <= 0 else _crossing(excess, 0.0, 1.0)


@cache
def _nodes() -> tuple[Array, Array]:
    """Return points and weights of Gauss and Legendre on [-1, 1]."""
    import numpy as np

    return np.polynomial.legendre.leggauss(_POINTS)


def _independent(interval: Interval, *, high: bool) -> float:
    """Return the number of independent images whose Clopper-Pearson interval has this end, at most those there are."""
    value, n = interval.value, interval.n

    def end(count: float) -> float:
        return exact_high(value * count, count) if high else -exact_low(value * count, count)

    wanted = interval.high if high else -interval.low
    if (high and value >= 1) or (not high and value <= 0) or end(n) >= wanted - 1e-9:
        return float(n)
    return _crossing(lambda count: wanted - end(count), 1e-3, float(n))


def _crossing(rising: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function that rises crosses 0, by halving: a plan starts faster without scipy's search."""
    for _ in range(48):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return high


def youden(errors: ScorerErrors) -> float | None:
    """Return the lower bound of J = Se + Sp - 1, from the lower bounds of both; None: no false alarms were counted."""
    if errors.false_alarms is None or not errors.false_alarms.n:
        return None
    return bound(errors.seen).low - bound(errors.false_alarms).high


def seen_together(errors: Sequence[ScorerErrors]) -> Tally:
    """Return the images of several concepts in which the scorer saw what was there: no image is of two of them."""
    seen = [one.seen for one in errors]
    groups = tuple(group for one in seen for group in (one.groups or ((one.hits, one.n),)))
    return Tally(hits=sum(one.hits for one in seen), n=sum(one.n for one in seen), groups=groups)


def alarms_together(errors: Sequence[ScorerErrors]) -> Interval | None:
    """Return the share of false alarms of several concepts: the mean over their images; None: one was not counted.

    One image is held against many concepts, so images are not added up: both ends are means of the concepts' own ends,
    with the numbers of their images as weights. A kind of which there are few images makes the interval wide by its
    share alone.
    """
    weights = [one.seen.n for one in errors]
    alarms = [bound(one.false_alarms) for one in errors if one.false_alarms and one.false_alarms.n]
    if len(alarms) < len(errors) or not sum(weights):
        return None

    def mean(of: Callable[[Interval], float]) -> float:
        return sum(weight * of(one) for weight, one in zip(weights, alarms, strict=True)) / sum(weights)

    return Interval(
        value=mean(lambda one: one.value),
        low=mean(lambda one: one.low),
        high=mean(lambda one: one.high),
        n=min(one.n for one in alarms),
        method="mean over the concepts of their Clopper-Pearson ends, weighted by images",
    )


def change(seen: Interval, j: float) -> Interval:
    """Return a paired change of what is there, from the change of what a scorer sees: losses are divided by J.

    Args:
        seen: change of the share that the scorer sees.
        j: lower bound of J, above 0.
    """
    value, low = (max(-1.0, end / j) if end < 0 else end for end in (seen.value, seen.low))
    method = _corrected(seen)
    return seen.model_copy(update={"value": value, "low": min(low, value), "method": method})


def rise(seen: Interval, j: float) -> Interval:
    """Return a paired change as :func:`change` does, for what must not rise: gains are divided by J.

    Args:
        seen: change of the share that the scorer sees.
        j: lower bound of J, above 0.
    """
    value, high = (min(1.0, end / j) if end > 0 else end for end in (seen.value, seen.high))
    method = _corrected(seen)
    return seen.model_copy(update={"value": value, "high": max(high, value), "method": method})


def rogan_gladen(seen: Interval, errors: ScorerErrors) -> Interval | None:
    """Return the full correction with the interval of Lang and Reiczigel; None where it is undefined.

    Z. Lang and J. Reiczigel, "Confidence limits for prevalence of disease adjusted for estimated sensitivity and
    specificity", Preventive Veterinary Medicine 113 (2014). It holds for images like those that the errors were counted
    in. Groups are not taken into account.

    Args:
        seen: share in which the scorer sees the concept.
        errors: counted in images whose truth is known.
    """
    j, alarms = youden(errors), errors.false_alarms
    if j is None or j <= 0 or alarms is None:
        return None
    m, length = errors.seen.n + 2, alarms.n + 2
    se, sp = (errors.seen.hits + 1) / m, (alarms.n - alarms.hits + 1) / length
    n = seen.n + Z_SQUARED
    q = (seen.value * seen.n + Z_SQUARED / 2) / n
    p = (q + sp - 1) / (se + sp - 1)
    miss, alarm = se * (1 - se) / m, sp * (1 - sp) / length
    shift = 2 * Z_SQUARED * (p * miss - (1 - p) * alarm)
    spread = math.sqrt(Z_SQUARED * (q * (1 - q) / n + p * p * miss + (1 - p) ** 2 * alarm)) / (se + sp - 1)
    low, high = (min(1.0, max(0.0, p + shift + sign * spread)) for sign in (-1, 1))
    alarm_rate = alarms.hits / alarms.n
    found = (seen.value - alarm_rate) / (errors.seen.hits / errors.seen.n - alarm_rate)
    value = min(high, max(low, found))
    return Interval(value=value, low=low, high=high, n=seen.n, method="Rogan-Gladen, Lang and Reiczigel 95%")
