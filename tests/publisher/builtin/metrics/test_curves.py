"""Curve metrics on trials whose answers are known by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from publisher.api import CurveMetric, Gate, Measurement, Trial
from publisher.api.intervals import RESAMPLES, UNBOUNDED
from publisher.api.verdicts import judge
from publisher.builtin.metrics.curve_statistics import AgainstParams, area, half_time
from publisher.builtin.metrics.curves import (
    CURVES,
    HalfTime,
    HalfTimeRatio,
    RelearnedArea,
    RelearnedLast,
    RelearnedWorst,
)
from publisher.builtin.metrics.gaps import LossGap, Msgr, Sgr

EVALUATION_STEPS = (0, 10, 20, 40)
NEVER, AT_15, AT_10, AT_ONCE = (0, 0, 0, 0), (0, 0, 100, 100), (0, 50, 100, 100), (100, 100, 100, 100)


def trials(model: str, *hits: Sequence[int], concept: str = "cat", **changes: Any) -> list[Trial]:
    """Return one trial for each row of hits among 100 images; of a single row three."""
    hits = hits * 3 if len(hits) == 1 else hits
    fields = {
        "concept": concept,
        "model": model,
        "evaluation_steps": EVALUATION_STEPS,
        "images_per_evaluation": 100,
        "losses": (1.0,) * 4,
        "similarity": (),
        "full": 1.0,
        **changes,
    }
    return [Trial(seed=i, hits=tuple(row), **fields) for i, row in enumerate(hits)]


def read(cls: type[CurveMetric[Any]], found: Sequence[Trial], against: str = "before") -> Measurement:
    return cls().read(AgainstParams(against=against), found)


@pytest.mark.parametrize(
    ("curve", "steps", "never"),
    [
        ((0.0, 0.0, 1.0, 1.0), 15, False),
        ((0.0, 0.5, 1.0, 1.0), 10, False),
        ((0.0, 0.25, 0.75, 1.0), 15, False),
        ((0.0, 0.0, 0.0, 1.0), 30, False),
        ((0.5, 0.0, 0.0, 0.0), 0, False),
        ((0.0, 0.4, 0.49, 0.49), 40, True),
        ((0.0, 0.8, 0.0, 0.9), 6.25, False),
    ],
)
def test_half_is_reached_between_evaluation_steps_at_the_first_crossing(
    curve: tuple[float, ...],
    steps: float,
    never: bool,  # noqa: FBT001
) -> None:
    found, censored = half_time(EVALUATION_STEPS, np.asarray([curve]))
    assert (found[0], bool(censored[0])) == (pytest.approx(steps), never)


def test_the_area_is_a_share_of_all_and_more_than_full_counts_as_full() -> None:
    curves = np.asarray([(0.0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 1, 1), (0, 2, 2, 2), (0, 0, 0, 1)])
    assert area(EVALUATION_STEPS, curves) == pytest.approx([0, 1, 35 / 40, 35 / 40, 10 / 40])


def test_t50_is_read_off_the_pooled_curve_relative_to_the_base_models_rate() -> None:
    found = read(HalfTime, [*trials("hardened", AT_15, AT_15), *trials("before", AT_10, AT_10)])
    assert (found.hardened.value, found.hardened.n) == (15, 2)
    assert found.base is not None
    assert found.base.value == 10
    weak = trials("hardened", (0, 25, 50, 50), full=0.5) + trials("before", (0, 25, 50, 50), full=0.5)
    assert read(HalfTime, weak).hardened.value == 10


def test_what_never_comes_back_is_a_lower_bound_that_no_gate_from_above_keeps() -> None:
    found = read(HalfTime, [*trials("hardened", NEVER), *trials("before", AT_15)])
    assert (found.hardened.value, found.hardened.low, found.hardened.high) == (40, 40, UNBOUNDED)
    assert found.details["censored"] is True
    assert judge(Gate(upper_at_most=100), found)[0] != "passed"
    assert judge(Gate(lower_at_least=40), found)[0] == "passed"


def test_the_ratio_is_how_many_times_as_many_steps() -> None:
    found = read(HalfTimeRatio, [*trials("hardened", AT_15), *trials("before", AT_10)])
    assert found.hardened.value == pytest.approx(1.5)
    assert found.hardened.low < 1.5 < found.hardened.high
    assert (found.details["t50"]["value"], found.details["control_t50"]["value"]) == (15, 10)


def test_a_ratio_of_what_never_comes_back_is_a_lower_bound() -> None:
    found = read(HalfTimeRatio, [*trials("hardened", NEVER), *trials("before", AT_10)])
    assert (found.hardened.value, found.hardened.high, found.details["lower_bound"]) == (4, UNBOUNDED, True)
    assert judge(Gate(upper_at_most=5), found)[0] != "passed"


def test_trials_that_sometimes_never_learn_leave_the_upper_end_open() -> None:
    found = read(HalfTimeRatio, [*trials("hardened", NEVER, AT_15, AT_15), *trials("before", AT_10, AT_10, AT_10)])
    assert found.details["censored"] is False
    assert found.hardened.high == UNBOUNDED
    assert 1.3 < found.hardened.low < 1.75


def test_a_control_that_generates_it_without_training_or_never_learns_it_is_no_control() -> None:
    with pytest.raises(ValueError, match="'before' generates it without any training"):
        read(HalfTimeRatio, [*trials("hardened", AT_15), *trials("before", AT_ONCE)])
    with pytest.raises(ValueError, match="'before' never learns the concept in 40 steps"):
        read(HalfTimeRatio, [*trials("hardened", AT_15), *trials("before", NEVER)])


def test_each_concept_has_its_own_number_and_the_whole_is_that_of_the_mean_curve() -> None:
    both = [
        *trials("hardened", AT_15),
        *trials("hardened", AT_10, concept="dog"),
        *trials("before", AT_10),
        *trials("before", AT_10, concept="dog"),
    ]
    found = read(HalfTimeRatio, both)
    assert {name: number.value for name, number in found.by_concept.items()} == {"cat": 1.5, "dog": 1.0}
    assert found.hardened.value == pytest.approx((10 + 10 / 3) / 10)
    assert found.hardened.n == 6


def test_areas_are_of_the_hardened_model_and_of_the_control() -> None:
    found = read(RelearnedArea, [*trials("hardened", NEVER, AT_ONCE), *trials("before", AT_ONCE, AT_ONCE)])
    assert found.base is not None
    assert (found.hardened.value, found.base.value, found.base.high, found.hardened.n) == (0.5, 1, 1, 2)
    assert (found.base.low, found.hardened.low, found.hardened.high) == pytest.approx((1, 0, 1), abs=0.12)


def test_few_images_without_a_hit_are_not_sure_of_anything() -> None:
    before = trials("before", (0, 1, 1, 1), (0, 1, 1, 1), images_per_evaluation=1)
    few, many = trials("hardened", NEVER, NEVER, images_per_evaluation=1), trials("hardened", NEVER)
    assert read(RelearnedArea, [*few, *before]).hardened.high > 0.2
    assert read(RelearnedArea, [*many, *trials("before", AT_10)]).hardened.high < 0.03
    assert read(HalfTime, [*few, *before]).hardened.low < 40
    assert read(HalfTime, [*many, *trials("before", AT_10)]).hardened.low == 40


def test_the_worst_evaluation_step_is_not_the_last_one() -> None:
    curve = (0, 80, 10, 20)
    found = [*trials("hardened", curve, curve), *trials("before", AT_15, AT_15)]
    worst, last = read(RelearnedWorst, found), read(RelearnedLast, found)
    assert (worst.hardened.value, worst.details["steps"], worst.hardened.n) == (0.8, 10, 200)
    assert (last.hardened.value, last.details["steps"]) == (0.2, 40)
    assert (worst.base and worst.base.value, last.base and last.base.value) == (1, 1)


def test_a_rate_is_as_wide_as_its_trials_differ() -> None:
    before = trials("before", AT_15, AT_15)
    alike = read(RelearnedLast, [*trials("hardened", (0, 0, 0, 50), (0, 0, 0, 50)), *before]).hardened
    apart = read(RelearnedLast, [*trials("hardened", (0, 0, 0, 0), (0, 0, 0, 100)), *before]).hardened
    assert alike.value == apart.value == 0.5
    assert (apart.low, apart.high) == (0, 1)
    assert 0.4 < alike.low < alike.high < 0.6


def test_a_hardened_model_that_is_no_better_than_the_control_shows_nothing() -> None:
    found = read(RelearnedLast, [*trials("hardened", NEVER), *trials("before", NEVER)])
    assert judge(Gate(upper_at_most=0.1), found)[0] == "unknown"


def test_the_loss_gap_pairs_trials_by_number() -> None:
    ours = [trials("hardened", NEVER)[i].model_copy(update={"losses": (1, 1, 1, 1.5 + i)}) for i in (0, 1, 2)]
    theirs = [trials("before", NEVER)[i].model_copy(update={"losses": (1, 1, 1, 1.0 + i)}) for i in (2, 1, 0)]
    found = read(LossGap, [*ours, *theirs]).hardened
    assert (found.value, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 3)


def test_students_interval_of_three_pairs() -> None:
    ours = [trials("hardened", NEVER)[i].model_copy(update={"losses": (1, 1, 1, 1.0 + i)}) for i in (0, 1, 2)]
    found = read(LossGap, [*ours, *trials("before", NEVER)]).hardened
    assert (found.value, found.high) == (1.0, pytest.approx(1.0 + 4.30265 / 3**0.5, abs=1e-4))


def test_sgr_is_the_share_of_the_controls_similarity_that_is_missing() -> None:
    ours = trials("hardened", NEVER, similarity=(0, 0, 0, 0.2))
    theirs = trials("before", NEVER, similarity=(0, 0, 0, 0.8))
    found = read(Sgr, [*ours, *theirs])
    assert (found.hardened.value, found.hardened.n, found.by_concept["cat"].value) == (0.75, 3, 0.75)


def test_msgr_is_the_mean_over_concepts_trial_by_trial() -> None:
    found = [
        *trials("hardened", NEVER, similarity=(0, 0, 0, 0.2)),
        *trials("hardened", NEVER, concept="dog", similarity=(0, 0, 0, 0.8)),
        *trials("before", NEVER, similarity=(0, 0, 0, 0.8)),
        *trials("before", NEVER, concept="dog", similarity=(0, 0, 0, 0.8)),
    ]
    number = read(Msgr, found).hardened
    assert (number.value, number.low, number.n) == (0.375, 0.375, 3)


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ((), (0, 0, 0, 0.8), "no features"),
        ((0, 0, 0, 0.1), (0, 0, 0, -0.1), "not similar to the reference images"),
    ],
)
def test_no_similarity_is_no_gap(ours: tuple[float, ...], theirs: tuple[float, ...], message: str) -> None:
    found = [*trials("hardened", NEVER, similarity=ours), *trials("before", NEVER, similarity=theirs)]
    with pytest.raises(ValueError, match=message):
        read(Sgr, found)


def test_two_pairs_have_no_interval() -> None:
    with pytest.raises(ValueError, match="too few trials for an interval: 2; at least 3 are needed"):
        read(LossGap, [*trials("hardened", NEVER, NEVER), *trials("before", NEVER, NEVER)])


@pytest.mark.parametrize("cls", [HalfTime, RelearnedArea, RelearnedLast, RelearnedWorst])
def test_one_trial_has_no_interval(cls: type[CurveMetric[Any]]) -> None:
    with pytest.raises(ValueError, match="one trial is too few"):
        read(cls, [trials("hardened", NEVER)[0], trials("before", AT_10)[0]])


BROKEN = {
    "no trial of the model 'before'": trials("hardened", AT_15),
    "no trial of the model 'hardened'": trials("before", AT_15),
    "'hardened' and 'before' have different trials": trials("hardened", AT_15, AT_15) + trials("before", AT_15),
    "different evaluation steps": [
        *trials("hardened", AT_15),
        *trials("hardened", (0, 0), evaluation_steps=(0, 5), losses=(1.0, 1.0)),
        *trials("before", AT_15),
    ],
    "different evaluation steps: it burst": trials("hardened", AT_15, problem="it burst") + trials("before", AT_15),
    "the base model never generates 'cat'": trials("hardened", AT_15, full=0.0) + trials("before", AT_15, full=0.0),
}


@pytest.mark.parametrize("message", BROKEN)
def test_trials_that_do_not_go_together_are_refused(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(HalfTimeRatio, BROKEN[message])


@pytest.mark.parametrize("cls", CURVES)
def test_every_metric_needs_its_control(cls: type[CurveMetric[Any]]) -> None:
    with pytest.raises(ValueError, match="no trial of the model 'before'"):
        read(cls, trials("hardened", AT_15, AT_15, AT_15))


@pytest.mark.parametrize("cls", CURVES)
def test_intervals_hold_their_value_and_are_the_same_again(cls: type[CurveMetric[Any]]) -> None:
    rows = [(0, 10, 60, 90), (0, 30, 70, 80), (0, 0, 40, 100)]
    found = [
        *trials("hardened", *rows, similarity=(0, 0.1, 0.2, 0.5)),
        *trials("before", *rows[::-1], similarity=(0.9,) * 4),
    ]
    first, second = read(cls, found), read(cls, found[::-1])
    assert first.hardened == second.hardened
    assert first.hardened.low <= first.hardened.value <= first.hardened.high
    assert first.hardened.method
    assert cls().best(AgainstParams(), 3) is None
    with pytest.raises(ValueError, match="needs an attack that trains"):
        cls().measure(AgainstParams(), [])


def test_more_images_narrow_the_interval() -> None:
    widths = []
    for images_per_evaluation in (10, 1000):
        rows = [tuple(int(images_per_evaluation * share) for share in (0, 0.2, 0.6, 0.9))] * 3
        found = trials("hardened", *rows, images_per_evaluation=images_per_evaluation) + trials(
            "before", *rows, images_per_evaluation=images_per_evaluation
        )
        number = read(HalfTimeRatio, found).hardened
        widths.append(number.high - number.low)
    assert all(wide > 3 * narrow for wide, narrow in pairwise(widths))
    assert RESAMPLES >= 1000
