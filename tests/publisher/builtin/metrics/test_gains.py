"""Shares of gains under a mask, against cases that can be counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.api import Measurement, Trial
from publisher.builtin.metrics.gains import GAINS, GainKept, GainLeft, GainParams, Selectivity, SelectivityParams

EVALUATION_STEPS = (0, 10, 20)


def trial(concept: str, model: str, seed: int, gain: float, **changes: Any) -> Trial:
    """Return a trial whose loss falls by half of the gain, then by all of it; the rate rises by 0 and by the gain."""
    fields: dict[str, Any] = {
        "concept": concept,
        "model": model,
        "seed": seed,
        "evaluation_steps": EVALUATION_STEPS,
        "hits": (0, 0, max(0, round(10 * gain))),
        "images_per_evaluation": 10,
        "losses": (1.0, 1.0 - gain / 2, 1.0 - gain),
        "similarity": (),
        "full": 1.0,
    }
    return Trial(**fields | changes)


def group(concept: str, model: str, *gains: float) -> list[Trial]:
    return [trial(concept, model, seed, gain) for seed, gain in enumerate(gains)]


GUN = [*group("gun", "hardened", 0.2, 0.1, 0.15), *group("gun", "unmasked", 0.4, 0.4, 0.5)]
CAT = [*group("cat", "hardened", 0.36, 0.4, 0.44), *group("cat", "unmasked", 0.4, 0.4, 0.4)]
KNIFE = [*group("knife", "hardened", 0.1, 0.1, 0.1), *group("knife", "unmasked", 0.2, 0.2, 0.2)]


def kept(trials: list[Trial], **params: Any) -> Measurement:
    return GainKept().read(GainParams(**params), trials)


def test_the_share_is_the_mean_of_all_pairs() -> None:
    found = kept(GUN)
    assert found.hardened.value == pytest.approx((0.5 + 0.25 + 0.3) / 3, abs=1e-6)
    assert (found.hardened.n, found.hardened.method) == (3, "Student's t over trials 95%")
    half = 4.30265 * 0.132288 / 3**0.5
    assert found.hardened.low == pytest.approx(0.35 - half, abs=1e-5)
    assert found.hardened.high == pytest.approx(0.35 + half, abs=1e-5)
    assert found.details["spread"] == {"gun": [0.5, 0.25, 0.3]}


def test_pairs_have_the_same_number_whatever_the_order() -> None:
    assert kept(GUN[::-1]).hardened == kept(GUN).hardened


def test_what_is_kept_and_what_is_left_are_one_number_with_two_directions() -> None:
    assert GainLeft().read(GainParams(), GUN) == kept(GUN)
    assert (GainKept.better, GainLeft.better) == ("higher", "lower")


def test_selectivity_is_the_innocents_mean_minus_that_of_the_others() -> None:
    found = Selectivity().read(SelectivityParams(innocents=("cat",)), [*GUN, *CAT, *KNIFE])
    others = ((0.5 + 0.25 + 0.3) / 3 + 0.5) / 2
    assert found.hardened.value == pytest.approx(1.0 - others, abs=1e-6)
    assert found.details["kept"] == {"innocents": 1.0, "others": pytest.approx(others, abs=1e-6)}
    assert {name: one.n for name, one in found.by_concept.items()} == {"gun": 3, "cat": 3, "knife": 3}
    assert found.hardened.n == 3
    assert found.hardened.low > 0


def test_exchanging_who_is_innocent_turns_the_sign() -> None:
    trials = [*GUN, *CAT]
    ours = Selectivity().read(SelectivityParams(innocents=("cat",)), trials).hardened
    theirs = Selectivity().read(SelectivityParams(innocents=("gun",)), trials).hardened
    assert ours.value == pytest.approx(-theirs.value)
    assert ours.low > 0 > theirs.high


def test_trials_that_differ_widen_the_interval_and_concepts_that_differ_do_not() -> None:
    alike = [
        trial(name, model, seed, gain)
        for name in ("a", "b", "c")
        for model, gain in (("hardened", 0.2), ("unmasked", 0.4))
        for seed in range(3)
    ]
    apart = [*group("a", "hardened", 0.0, 0.0, 0.0), *alike[3:]]
    assert (kept(alike).hardened.low, kept(alike).hardened.high) == (0.5, 0.5)
    assert kept(apart).hardened.low == kept(apart).hardened.high == pytest.approx(1 / 3)
    restless = [*group("a", "hardened", 0.0, 0.1, 0.2), *alike[3:]]
    assert kept(restless).hardened.low < 0.25 < kept(restless).hardened.value


def test_a_control_and_an_earlier_evaluation_step_can_be_chosen() -> None:
    trials = [*GUN, *group("gun", "random-mask", 0.2, 0.2, 0.2)]
    assert kept(trials, against="random-mask").hardened.value == pytest.approx((1 + 0.5 + 0.75) / 3)
    assert kept(trials, evaluation_step=10).hardened == kept(trials).hardened
    assert kept(trials, evaluation_step=10).details["evaluation_step"] == 10
    assert kept(trials, of="rate", evaluation_step=20).hardened.value == pytest.approx(
        (2 / 4 + 1 / 4 + 2 / 5) / 3, abs=1e-6
    )


def test_gains_of_every_model_at_every_evaluation_step_are_in_the_details() -> None:
    rows = kept([*GUN, *group("gun", "random-mask", 0.2, 0.2, 0.2)]).details["gains"]
    assert rows[2] == {"concept": "gun", "model": "random-mask", "10 steps": 0.1, "20 steps": 0.2}
    assert [row["model"] for row in rows] == ["hardened", "unmasked", "random-mask"]


def test_a_training_that_makes_it_worse_keeps_less_than_nothing() -> None:
    trials = [*group("gun", "hardened", -0.1, -0.1, -0.1), *group("gun", "unmasked", 0.4, 0.4, 0.4)]
    assert kept(trials).hardened.value == -0.25


def test_equal_trials_give_equal_numbers() -> None:
    assert kept(GUN) == kept(list(GUN))


@pytest.mark.parametrize(
    ("trials", "params", "reason"),
    [
        (GUN[:3], {}, "no trial of the model 'unmasked'"),
        ([*GUN[:3], *group("gun", "unmasked", 0.4, 0.4, 0.0)], {}, "gains nothing of 'gun' in trial 2"),
        ([GUN[0], GUN[1], GUN[3], GUN[4]], {}, "too few trials for an interval: 2; at least 3 are needed"),
        ([*GUN, CAT[0], CAT[1], CAT[3], CAT[4]], {}, "the concepts have different trials"),
        (GUN, {"evaluation_step": 15}, "no evaluation step of 15 steps"),
        (GUN[:5], {}, "have different trials"),
    ],
)
def test_too_little_to_say_anything_is_a_value_error(trials: list[Trial], params: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        kept(trials, **params)


@pytest.mark.parametrize(
    ("innocents", "reason"), [(("dog",), "no trial of the innocent dog"), (("gun", "cat"), "all concepts")]
)
def test_innocents_have_to_be_there_and_not_alone(innocents: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Selectivity().read(SelectivityParams(innocents=innocents), [*GUN, *CAT])


def test_nothing_is_known_beforehand() -> None:
    assert [
        metric().best(metric.Params(**({"innocents": ("a",)} if metric is Selectivity else {})), 9) for metric in GAINS
    ] == [None] * 3
