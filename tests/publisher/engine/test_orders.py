"""Which orders of steps the plan warns of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest

from publisher import api
from publisher.api.freeze_mask import FILE
from publisher.engine.orders import require_possible, warnings
from publisher.engine.plan import PlannedStep
from publisher_immunize.step import Immunize

Make = Callable[..., PlannedStep]
ERASE: Mapping[str, Sequence[str]] = {"unet": ["attn2.to_k.weight"]}
MEMBRANES = ("membranes/index.json", "membranes/gun.safetensors")


@pytest.fixture
def step(planned: Make) -> Make:
    def make(name: str, changes: Mapping[str, Sequence[str]], *artifacts: str, id: str = "") -> PlannedStep:  # noqa: A002
        one = planned(id=id or name)
        return replace(one, identity=replace(one.identity, name=name), plan=api.StepPlan(changes, artifacts))

    return make


def test_the_order_of_a_full_release_is_no_problem(step: Make) -> None:
    steps = [
        step("erase", ERASE),
        step("immunize", ERASE),
        step("freeze-mask", {}, FILE),
        step("membrane-bundle", {}, *MEMBRANES),
    ]
    assert warnings(steps, "unet") == ()


def test_a_step_that_changes_the_denoiser_makes_the_mask_stale(step: Make) -> None:
    (found,) = warnings([step("mask", {}, FILE), step("membranes", {}), step("tune", ERASE)], "unet")
    assert found.startswith("'tune' changes the denoiser after 'mask' has made the freeze mask: the release stops")
    assert found.endswith("Put 'mask' behind 'tune'.")


def test_a_text_encoder_does_not_touch_the_mask(step: Make) -> None:
    assert warnings([step("mask", {}, FILE), step("words", {"text_encoder": ["a"]})], "unet") == ()


def test_membranes_of_weights_that_change_later_are_named(step: Make) -> None:
    (found,) = warnings([step("bundle", {}, *MEMBRANES), step("erase", ERASE)], "unet")
    assert found.startswith("'bundle' makes membranes for weights that 'erase' changes afterwards")


def test_an_erasure_behind_an_immunisation_is_named_and_not_the_other_way_round(step: Make) -> None:
    erase, immunize = step("erase", ERASE), replace(step("immunize", ERASE), step=Immunize())
    (found,) = warnings([immunize, erase], "unet")
    assert found.startswith("'erase' may undo what 'immunize' does: it edits how text enters, or trains the")
    assert found.endswith("Put 'immunize' behind 'erase'.")
    assert warnings([erase, immunize], "unet") == ()


def test_two_of_the_same_are_named_by_their_ids(step: Make) -> None:
    (found,) = warnings([step("erase", ERASE, id="first"), step("erase", ERASE, id="second")], "unet")
    assert found.startswith("'first' and 'second' are the same kind of step")


def test_steps_without_a_plan_are_told_by_their_names(planned: Make) -> None:
    assert len(warnings([planned(id="one"), planned(id="two")], "")) == 1


def test_a_step_that_has_to_be_first_or_last_is_not_run_elsewhere(step: Make) -> None:
    plain, mask, unknown = step("erase", ERASE), step("mask", {}, FILE), step("later", ERASE)
    alone = step("slices", ERASE)
    alone = replace(alone, plan=api.StepPlan(ERASE, first="it works on the base model", last="it says so"))
    require_possible([mask, alone, mask])
    require_possible([replace(unknown, plan=None), alone])
    with pytest.raises(api.UsageError, match="'erase' changes weights before 'slices': it works on the base") as caught:
        require_possible([plain, mask, alone])
    assert caught.value.hint == "Put 'slices' before 'erase'."
    with pytest.raises(api.UsageError, match="'erase' changes weights after 'slices': it says so"):
        require_possible([alone, mask, plain])
