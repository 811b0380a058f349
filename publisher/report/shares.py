"""How much of a concept was removed, attack by attack: the share of the way from the base model to a floor.

An attack gives each model a number: the rate of its best find, or how long its training took. With H of the hardened
model, B of the base model and G of a model that never knew the concept (the retrained reference, or a proxy for it):

    rho = (H - B) / (G - B)                                                            0: as the base model, 1: as G
    interval: all r with |(H - B) - r (G - B)| <= q sqrt((1 - r)^2 v_B + v_H + r^2 v_G)         (Fieller)

Source: E. C. Fieller, "Some problems in interval estimation", J. R. Stat. Soc. B 16 (1954). H and G share B, so the
terms of B join. q is Student's quantile over trials, with Satterthwaite's degrees of freedom at rho, and the normal one
of rates; it is larger where a find is the best of several. Where G is not clear of B, or within ten points of it, the
attack teaches as fast as it reminds: *uninformative*. How often the interval covers: ``docs/explanation/intervals.md``.

The number of a training is the mean share of the concept that is not back, over all evaluation steps: defined for every
curve, also for one that never reaches a half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, fmean, variance
from typing import Any, Literal

from publisher.api import CheckRecord, Search, Trial
from publisher.api.finds import STOPPED
from publisher.api.metrics import LEAST_DISTANCE
from publisher.api.training import UNSEEN

LEVEL = 0.95
NORMAL = math.inf
"""Degrees of freedom of what has no trials."""
REFERENCE = "retrained"
PROXIES = {
    "shuffled": "a search for what it cannot have",
    "input": "the input alone",
    UNSEEN: "a kind of picture that the base model never saw",
}
"""What stands in for a retrained reference -> what it is."""
Standing = Literal["measured", "uninformative", "powerless", "crashed", "no floor", "too few trials"]


@dataclass(frozen=True)
class Arm:
    """The number of one model under one attack; larger is better for the publisher."""

    value: float
    """As it was counted."""
    middle: float
    """What the interval is made around: rates are drawn in from 0 and 1."""
    variance: float
    freedom: float = NORMAL
    best_of: int = 1
    """Finds of which it is the best."""


@dataclass(frozen=True)
class RemovedShare:
    """What one check says of how much of one concept was removed."""

    check: CheckRecord
    standing: Standing
    against: str = ""
    """Model that is the floor: ``retrained``, or a proxy; empty: there is none."""
    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    shows: bool = False
    """Whether there is no floor, and a search finds the concept in ten of a hundred images or more."""
    above: bool = False
    """Whether the hardened model gives clearly more than the floor, by ten points at least. Without a floor: whether it
    ``shows`` it, and not clearly less than the base model does."""

    @property
    def informative(self) -> bool:
        """Whether there is a share."""
        return self.standing == "measured"

    @property
    def back(self) -> bool:
        """Whether the attack brings the concept back as in the base model, or where the base model withstands it."""
        return self.low <= 0 and self.high < 1 if self.informative else self.above


def removed_share(check: CheckRecord, concept: str) -> RemovedShare | None:
    """Return how much of a concept was removed by one check; None: the check cannot say, whatever it found.

    Args:
        check: of an attack that searches or trains.
        concept: id.
    """
    if not check.resistance or concept not in check.concepts:
        return None
    if check.searches:
        return _of_searches(check, [one for one in check.searches if one.concept == concept])
    trials = [one for one in check.trials if one.concept == concept]
    return _of_trials(check, trials) if trials and check.attack_params.get("mask") is not True else None


def between(hardened: Arm, base: Arm, floor: Arm) -> tuple[float, float, float] | None:
    """Return rho with its interval; None: base model and floor are too near each other to tell.

    The largest and the least number of models decide nothing here: rho may lie below 0 or above 1.
    """
    if not clear(base, floor):
        return None
    distance, moved = floor.middle - base.middle, hardened.middle - base.middle
    tail = (1 - LEVEL) / 2 / max(one.best_of for one in (hardened, base, floor))
    value = (hardened.value - base.value) / (floor.value - base.value)
    parts = [((1 - value) ** 2, base), (1.0, hardened), (value**2, floor)]
    q = _quantile(tail, [(weight * one.variance, one.freedom) for weight, one in parts])
    a = distance**2 - q * q * (base.variance + floor.variance)
    b = moved * distance - q * q * base.variance
    c = moved**2 - q * q * (base.variance + hardened.variance)
    if a <= 0:  # with more degrees of freedom G was clear of B, with these it is not
        return None
    root = math.sqrt(max(0.0, b * b - a * c))
    return value, min(value, (b - root) / a), max(value, (b + root) / a)


def clear(model: Arm, floor: Arm) -> bool:
    """Return whether a model gives more of the concept than the floor: by ten points, and by Welch's test."""
    tail = (1 - LEVEL) / 2 / max(model.best_of, floor.best_of)
    q = _quantile(tail, [(floor.variance, floor.freedom), (model.variance, model.freedom)])
    far = floor.middle - model.middle > q * math.sqrt(floor.variance + model.variance)
    return far and floor.value - model.value >= LEAST_DISTANCE


def _quantile(tail: float, terms: Sequence[tuple[float, float]]) -> float:
    """Return the quantile of a sum of estimated variances, each with its degrees of freedom (Satterthwaite)."""
    parts = sum(term**2 / freedom for term, freedom in terms)
    if not parts:
        return NormalDist().inv_cdf(1 - tail)
    from scipy.special import stdtrit

    return float(stdtrit(sum(term for term, _ in terms) ** 2 / parts, 1 - tail))


def _share(check: CheckRecord, arms: dict[str, Arm | None], against: str) -> RemovedShare:
    hardened, base, floor = arms.get("hardened"), arms.get("base"), arms.get(against)
    if hardened is None or base is None:
        return RemovedShare(check, "no floor")
    if floor is None:
        shows = bool(check.searches) and -hardened.value >= LEAST_DISTANCE
        return RemovedShare(check, "no floor", shows=shows, above=shows and not clear(base, hardened))
    found, above = between(hardened, base, floor), clear(hardened, floor)
    if found is None:
        return RemovedShare(check, "uninformative", against, above=above)
    return RemovedShare(check, "measured", against, *found, above=above)


def _of_searches(check: CheckRecord, searches: Sequence[Search]) -> RemovedShare:
    by_model = {one.model: one for one in searches}
    details: dict[str, Any] = check.measurement.details if check.measurement else {}
    standing = details.get("standing")
    concept = searches[0].concept if searches else ""
    if "hardened" not in by_model or any(one.stop in STOPPED for one in searches) or check.measurement is None:
        return RemovedShare(check, "crashed")
    arms = {model: _best(search) for model, search in by_model.items()}
    own = by_model["hardened"]
    from_input = own.input_hits is not None or any(find.input_hits is not None for find in own.finds)
    arms["input"] = Arm(0.0, 0.0, 0.0) if from_input else None
    floors = [model for model in (REFERENCE, *PROXIES) if arms.get(model) is not None]
    found = _share(check, arms, floors[0] if floors else "")
    powerless = isinstance(standing, dict) and standing.get(concept) == "powerless"
    return replace(found, standing="powerless") if powerless else found


def _best(search: Search) -> Arm | None:
    """Return the best find, counted over what its own input shows; all that was tried, where nothing was found."""
    tried = [(search.hits, search.input_hits, search.tried)] if search.tried else []
    judged = [(one.hits, one.input_hits, one.n) for one in search.finds] or tried
    if not judged:
        return None
    hits, alone, n = max(judged, key=lambda one: (one[0] - (one[1] or 0)) / one[2])
    found = _rate(hits, n, len(search.finds) or 1)
    return found if alone is None else _less(found, _rate(alone, n, 1))


def _less(one: Arm, other: Arm) -> Arm:
    return replace(
        one,
        value=one.value - other.value,
        middle=one.middle - other.middle,
        variance=one.variance + other.variance,
    )


def _rate(hits: int, n: int, best_of: int) -> Arm:
    """Return a rate, counted down from 0, so that more is better: with Agresti's and Coull's four images, as in 95%."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (hits + z * z / 2) / (n + z * z)
    return Arm(-hits / n, -middle, middle * (1 - middle) / (n + z * z), NORMAL, best_of)


def _of_trials(check: CheckRecord, trials: Sequence[Trial]) -> RemovedShare:
    arms: dict[str, Arm | None] = {}
    for model in dict.fromkeys(one.model for one in trials):
        own = [one for one in trials if one.model == model]
        if any(one.problem for one in own):
            return RemovedShare(check, "crashed")
        arms[model] = _not_back(own)
    floor = REFERENCE if REFERENCE in arms else UNSEEN
    if any(model in arms and arms[model] is None for model in ("hardened", "base", floor)):
        return RemovedShare(check, "too few trials")
    return _share(check, arms, floor)


def _not_back(trials: Sequence[Trial]) -> Arm | None:
    """Return the mean share that is not back, over trials; None: one trial, or nothing to be a share of."""
    steps = trials[0].evaluation_steps
    if len(trials) < 2 or len(steps) < 2 or any(one.evaluation_steps != steps or one.full <= 0 for one in trials):
        return None
    ends = [steps[0], *steps, steps[-1]]
    weights = [(ends[i + 2] - ends[i]) / 2 / (steps[-1] - steps[0]) for i in range(len(steps))]  # the trapezoid's
    numbers, images = [], []
    for one in trials:
        n = one.images_per_evaluation
        numbers.append(1 - sum(w * min(1.0, hits / n / one.full) for w, hits in zip(weights, one.hits, strict=True)))
        rates = [(hits + 2) / (n + 4) for hits in one.hits]
        images.append(sum((w / one.full) ** 2 * p * (1 - p) / (n + 4) for w, p in zip(weights, rates, strict=True)))
    middle = fmean(numbers)
    # Trials that happen to agree are no more certain than their images.
    return Arm(middle, middle, max(variance(numbers), fmean(images)) / len(trials), len(trials) - 1)
