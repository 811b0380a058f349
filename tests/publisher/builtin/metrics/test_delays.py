"""The specific delay, against cases that can be counted by hand."""

from __future__ import annotations

from math import exp, log
from statistics import fmean
from typing import Any

import pytest

from publisher.api import Measurement, Trial
from publisher.builtin.metrics.delays import DelayParams, SpecificDelay

EVALUATION_STEPS = (0, 10, 20, 40)


def trial(concept: str, model: str, seed: int, hits: tuple[int, ...], **changes: Any) -> Trial:
    fields: dict[str, Any] = {
        "concept": concept,
        "model": model,
        "seed": seed,
        "evaluation_steps": EVALUATION_STEPS,
        "hits": hits,
        "images_per_evaluation": 10,
        "losses": (1.0,) * 4,
        "similarity": (),
        "full": 1.0,
    }
    return Trial(**fields | changes)


def group(concept: str, model: str, *rows: tuple[int, ...], **changes: Any) -> list[Trial]:
    return [trial(concept, model, seed, hits, **changes) for seed, hits in enumerate(rows)]


FAST, SLOW, NEVER = (0, 10, 10, 10), (0, 0, 0, 10), (0, 0, 0, 0)
"""Not back for 5, for 30 and for all of 40 steps: T of 1/8, 3/4 and 1."""
GUN = [*group("gun", "hardened", SLOW, SLOW, SLOW), *group("gun", "base", FAST, FAST, FAST)]
CAT = [*group("cat", "hardened", FAST, FAST, FAST), *group("cat", "base", FAST, FAST, FAST)]


def delay(trials: list[Trial], *innocents: str) -> Measurement:
    return SpecificDelay().read(DelayParams(against="base", innocents=innocents or ("cat",)), trials)


def test_the_delay_is_that_of_what_goes_over_that_of_the_innocents() -> None:
    found = delay([*GUN, *CAT])
    assert (found.hardened.value, found.hardened.low, found.hardened.high) == (6.0, 6.0, 6.0)
    assert {name: one.value for name, one in found.by_concept.items()} == {"gun": 6.0, "cat": 1.0}
    assert (found.hardened.n, found.hardened.method) == (3, "Student's t over logarithms of trials 95%")


def test_a_model_that_is_stiffer_for_everything_removed_nothing_in_particular() -> None:
    stiff = [*group("cat", "hardened", SLOW, SLOW, SLOW), *CAT[3:]]
    assert delay([*GUN, *stiff]).hardened.value == 1.0
    assert delay([*GUN, *stiff]).by_concept["gun"].value == 6.0


def test_several_concepts_and_innocents_count_by_their_geometric_means() -> None:
    dog = [*group("dog", "hardened", SLOW, SLOW, SLOW), *group("dog", "base", FAST, FAST, FAST)]
    knife = [*group("knife", "hardened", NEVER, NEVER, NEVER), *group("knife", "base", FAST, FAST, FAST)]
    found = delay([*GUN, *knife, *CAT, *dog], "cat", "dog")
    assert found.hardened.value == pytest.approx((6 * 8) ** 0.5 / 6**0.5, abs=1e-6)
    assert found.details["innocents"] == ["cat", "dog"]


def test_the_interval_is_students_of_logarithms_over_trials() -> None:
    gun = [*group("gun", "hardened", SLOW, FAST, NEVER), *GUN[3:]]
    found = delay([*gun, *CAT]).hardened
    logs = [log(6), log(1), log(8)]
    middle = fmean(logs)
    half = 4.30265 * (sum((one - middle) ** 2 for one in logs) / 2) ** 0.5 / 3**0.5
    assert found.value == pytest.approx(exp(middle), abs=1e-5)
    assert found.low == pytest.approx(exp(middle - half), abs=1e-4)
    assert found.high == pytest.approx(exp(middle + half), rel=1e-4)


def test_trials_go_together_by_their_number_whatever_the_order() -> None:
    gun = [*group("gun", "hardened", SLOW, FAST, NEVER), *group("gun", "base", FAST, SLOW, FAST)]
    assert delay([*gun[::-1], *CAT]).hardened == delay([*gun, *CAT]).hardened


def test_what_is_not_half_back_by_the_last_step_is_said() -> None:
    gun = [*group("gun", "hardened", NEVER, NEVER, NEVER), *GUN[3:]]
    found = delay([*gun, *CAT])
    assert (found.hardened.value, found.details["censored_concepts"]) == (8.0, ["gun"])
    assert delay([*GUN, *CAT]).details["censored_concepts"] == []


def test_rates_are_relative_to_what_the_base_model_shows_when_asked_plainly() -> None:
    half = [
        *group("gun", "hardened", (0, 0, 0, 5), (0, 0, 0, 5), (0, 0, 0, 5), full=0.5),
        *group("gun", "base", (0, 5, 5, 5), (0, 5, 5, 5), (0, 5, 5, 5), full=0.5),
    ]
    assert delay([*half, *CAT]).hardened.value == 6.0


@pytest.mark.parametrize(
    ("trials", "innocents", "reason"),
    [
        ([*GUN, *CAT], ("dog",), "no trial of the innocent dog"),
        ([*GUN, *CAT], ("gun", "cat"), "all concepts of the check are innocent"),
        ([*GUN, CAT[0], CAT[1], CAT[3], CAT[4]], ("cat",), "the concepts have different trials"),
        ([*GUN[:2], *GUN[3:5], *CAT[:2], *CAT[3:5]], ("cat",), "too few trials for an interval: 2"),
        ([*GUN[:3], *CAT], ("cat",), "have different trials"),
        (
            [*group("gun", "hardened", (10,) * 4, SLOW, SLOW), *GUN[3:], *CAT],
            ("cat",),
            "the model 'hardened' generates 'gun' from the first step on",
        ),
    ],
)
def test_too_little_to_say_anything_is_a_value_error(
    trials: list[Trial], innocents: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        delay(trials, *innocents)
