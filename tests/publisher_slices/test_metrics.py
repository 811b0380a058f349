from __future__ import annotations

import pytest

from publisher.api import Trial
from publisher_slices import publisher_register_metrics
from publisher_slices.metrics import HeadStart, HeadStartParams

STEPS = (0, 5, 15)


def trial(model: str, seed: int, losses: tuple[float, ...], problem: str = "") -> Trial:
    reached = STEPS[: len(losses)]
    return Trial(
        concept="woodcut",
        model=model,
        seed=seed,
        evaluation_steps=reached,
        hits=(0,) * len(losses),
        images_per_evaluation=1,
        losses=losses,
        similarity=(),
        full=0.0,
        problem=problem,
    )


def pairs(*ours: tuple[float, ...]) -> list[Trial]:
    base = [trial("base", seed, (0.8, 0.6, 0.5)) for seed in range(len(ours))]
    return base + [trial("hardened", seed, losses) for seed, losses in enumerate(ours)]


def test_the_plugin_registers_the_metric() -> None:
    assert publisher_register_metrics() == (HeadStart,)


def test_a_model_that_fits_the_pictures_as_the_base_does_has_no_head_start() -> None:
    found = HeadStart().read(HeadStartParams(), pairs(*[(0.8, 0.6, 0.5)] * 3)).hardened
    assert (found.value, found.low, found.high, found.n) == (0.0, 0.0, 0.0, 3)


def test_a_head_start_is_the_area_between_the_losses_as_a_share() -> None:
    """By hand: shares 0.5, 0.5, 0 at 0, 5, 15 steps have the area 2.5 + 2.5 of 15."""
    ours = [(0.4, 0.3, 0.5), (0.4, 0.3, 0.5), (0.4, 0.3, 0.4)]
    found = HeadStart().read(HeadStartParams(), pairs(*ours))
    assert found.hardened.value == pytest.approx((1 / 3 + 1 / 3 + (2.5 + 3.5) / 15) / 3, abs=1e-6)
    assert found.hardened.low < found.hardened.value < found.hardened.high
    assert found.by_concept["woodcut"] == found.hardened
    assert found.details["before_training"] == {"woodcut": {"hardened": 0.4, "base": 0.8}}


@pytest.mark.parametrize(
    ("trials", "message"),
    [
        (pairs((0.8, 0.6, 0.5), (0.8, 0.6, 0.5)), "too few trials for an interval: 2"),
        (pairs(*[(0.8, 0.6, 0.5)] * 3)[1:], "do not go together"),
        (pairs(*[(0.8, 0.6)] * 3), "different evaluation steps"),
        ([*pairs(*[(0.8, 0.6, 0.5)] * 3), trial("base", 9, (0.8,), "the loss is nan")], "ended early: the loss is nan"),
    ],
)
def test_what_was_measured_too_little_is_no_number(trials: list[Trial], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HeadStart().read(HeadStartParams(), trials)
