from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from erase_fakes import concept
from trained_cases import SCOPE, TARGETS, params_of, run, train

from publisher.api import ModelError, Scope, UsageError
from publisher.api.diffusion.denoiser import Denoiser
from publisher.model.state import State
from publisher.testing.running import StoppedError, StoppingAt, WatchedStep
from publisher.testing.tiny import open_model
from publisher_erase.attackers import StatesAttacker
from publisher_erase.params import EraseParams, RobustParams
from publisher_erase.robust import inner_losses
from publisher_erase.step import Erase
from support.tiny_families import TINY
from support.tiny_flux import save_tiny_flux

METHODS = ("surgical", "robust")
SLOW = pytest.mark.slow
QUICK_FAMILIES = (("surgical", "flux-1"), ("surgical", "stable-diffusion-3"), ("robust", "stable-diffusion-xl"))
"""What of them every run of the tests looks at."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> State:
    return open_model(TINY["stable-diffusion-1"](tmp_path_factory.mktemp("tiny") / "model"))


@pytest.mark.parametrize(
    ("method", "parts"),
    [("surgical", "kv"), pytest.param("surgical", "cross-attention", marks=SLOW), ("robust", "full")],
)
def test_what_is_planned_is_what_moves(model: State, tmp_path: Path, method: str, parts: str) -> None:
    ctx = train(model, tmp_path, method, parts=parts)
    plan = Erase().plan(params_of(method, parts=parts), SCOPE, model)
    assert set(plan.changes["unet"]) == {name for _, name in ctx.tensors}
    moved = [name for (part, name), value in ctx.tensors.items() if not torch.equal(value, model.read(part, name))]
    assert len(moved) > 0.9 * len(ctx.tensors)


@pytest.mark.parametrize("method", ["surgical", pytest.param("robust", marks=SLOW)])
def test_no_step_from_the_closed_form_is_the_closed_form(model: State, tmp_path: Path, method: str) -> None:
    trained = train(model, tmp_path / "a", method, steps=0, parts="kv")
    closed = run(model, tmp_path / "b", EraseParams(targets=TARGETS, preserve_scale=10.0))
    assert trained.tensors.keys() == closed.tensors.keys()
    assert all(torch.equal(value, closed.tensors[name]) for name, value in trained.tensors.items())


@pytest.mark.parametrize("method", ["surgical", pytest.param("robust", marks=SLOW)])
def test_a_training_lowers_what_it_is_trained_on(model: State, tmp_path: Path, method: str) -> None:
    own = {"init": "base", "parts": "kv", "steps": 40, "lr": 1e-3, "lam_keep": 0.0, "lam_uncond": 1.0}
    ctx = train(model, tmp_path, method, **own)
    left = [one.value for one in ctx.numbers if "guidance left" in one.name]
    assert len(left) == 2
    assert max(left) < 0.6


@pytest.mark.slow
def test_a_large_weight_of_the_empty_prompt_holds_it(model: State, tmp_path: Path) -> None:
    free, held = (
        train(model, tmp_path / str(lam), "surgical", steps=30, lr=3e-3, init="base", lam_uncond=lam, lam_keep=0.0)
        for lam in (0.0, 1000.0)
    )
    assert 4 * drift(held) < drift(free)


def drift(ctx: WatchedStep) -> float:
    return max(one.value for one in ctx.numbers if "drift of the empty prompt" in one.name)


@pytest.mark.parametrize(("method", "stop"), [("surgical", 0), ("robust", 3), pytest.param("robust", 1, marks=SLOW)])
def test_a_stopped_training_goes_on_to_the_same_bytes(model: State, tmp_path: Path, method: str, stop: int) -> None:
    """At 0 it stops between two batches of trajectories, at 3 after a search of the attackers."""
    params = params_of(method)
    whole = run(model, tmp_path / "whole", params)
    with pytest.raises(StoppedError):
        run(model, tmp_path / "part", params, progress=StoppingAt(stop) if stop else StoppingInBatches())
    assert list((tmp_path / "part").glob("*.json"))
    assert run(model, tmp_path / "part", params).result == whole.result


class StoppingInBatches(StoppingAt):
    """Progress that stops the run before the third batch of trajectories."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.batches = 0

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        super().update(stage, done, total, text)
        self.batches += "trajectories, " in text
        if self.batches == 3:
            raise StoppedError


def test_a_damaged_batch_of_trajectories_is_drawn_again_aloud(model: State, tmp_path: Path) -> None:
    params = params_of("surgical")
    whole = run(model, tmp_path, params)
    next(tmp_path.glob("kept+kept.0-*.safetensors")).write_bytes(b"broken")
    next(tmp_path.glob("training.json")).unlink()
    again = run(model, tmp_path, params)
    assert again.result == whole.result
    assert any("drawn again" in warning for warning in again.warnings)


def test_rows_of_a_concept_are_never_taken_for_what_is_held_out_of_another(model: State, tmp_path: Path) -> None:
    one, other = SCOPE.concepts
    scope = SCOPE.model_copy(update={"concepts": (one, other.model_copy(update={"id": f"{one.id}-held"}))})
    params = params_of("surgical")
    targets = {one.id: "pizza", f"{one.id}-held": "robot"}
    run(model, tmp_path, params.model_copy(update={"targets": targets}), scope)
    batches = {path.stem for path in tmp_path.glob("*.json")} - {"training"}
    assert len(batches) == 2 * 3 + 1  # of each concept two owners and what is held out; and what is kept


@pytest.mark.parametrize("kinds", [["derived"], ["token"], pytest.param(["token", "derived", "states"], marks=SLOW)])
def test_attackers_can_be_exchanged(model: State, tmp_path: Path, kinds: list[str]) -> None:
    ctx = train(model, tmp_path, "robust", attack={"kinds": kinds})
    curves = {one.name for one in ctx.curves}
    assert "adversarial loss" in curves
    assert ("attackers' loss" in curves) == (kinds != ["derived"])


def test_without_attackers_rows_it_is_surgical_on_the_same_rows(model: State, tmp_path: Path) -> None:
    robust = train(model, tmp_path / "a", "robust", lam_adversarial=0.0)
    plain = train(model, tmp_path / "b", "surgical", parts="full", lam_keep_empty=10.0, lr=robust_rate(model))
    assert all(torch.equal(value, plain.tensors[name]) for name, value in robust.tensors.items())


def robust_rate(model: State) -> float:
    decided = Erase().decide(params_of("robust"), SCOPE, model).robust
    assert isinstance(decided, RobustParams)
    assert decided.lr
    return decided.lr


@pytest.mark.slow
def test_the_image_term_is_an_option(model: State, tmp_path: Path) -> None:
    with_it, without = (train(model, tmp_path / str(lam), "robust", lam_image=lam) for lam in (0.5, 0.0))
    assert ["image loss" in [one.name for one in ctx.curves] for ctx in (with_it, without)] == [True, False]


@pytest.mark.parametrize(
    ("method", "family"),
    [
        pytest.param(method, family, marks=() if (method, family) in QUICK_FAMILIES else SLOW)
        for method in METHODS
        for family in sorted(set(TINY) - {"stable-diffusion-1"})
    ],
)
def test_every_family_is_trained_or_refused_with_the_closed_form(tmp_path: Path, method: str, family: str) -> None:
    model = open_model(TINY[family](tmp_path / "model"))
    params = params_of(method, steps=1, lr=1e-3, **({} if method == "surgical" else {"attack": {"kinds": ["states"]}}))
    if family == "flux-1":
        with pytest.raises(ModelError, match="distilled") as caught:
            Erase().plan(params, SCOPE, model)
        assert "method: uce" in caught.value.hint
        return
    ctx = run(model, tmp_path / "scratch", params)
    assert not ctx.refused
    assert ctx.tensors


@pytest.mark.parametrize("method", METHODS)
def test_schnell_is_refused_with_the_closed_form(tmp_path: Path, method: str) -> None:
    model = open_model(save_tiny_flux(tmp_path / "model", distilled=False))
    with pytest.raises(ModelError, match=r"distilled: .* schnell") as caught:
        Erase().plan(params_of(method), SCOPE, model)
    assert "method: uce" in caught.value.hint
    assert Erase().plan(EraseParams(targets=TARGETS, rows="content"), SCOPE, model).changes
    scheduler = model.base_files("scheduler") / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"use_dynamic_shifting": True}))
    assert Erase().plan(params_of("surgical"), SCOPE, open_model(tmp_path / "model")).changes


def test_a_model_of_few_steps_is_refused_where_its_files_say_so(tmp_path: Path) -> None:
    folder = TINY["stable-diffusion-1"](tmp_path / "model")
    index, scheduler = folder / "model_index.json", folder / "scheduler" / "scheduler_config.json"
    said, config = json.loads(index.read_text()), json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps(config | {"timestep_spacing": "trailing"}))
    plan = Erase().plan(params_of("surgical"), SCOPE, open_model(folder))
    assert any("take method uce if this is one" in note for note in plan.notes)
    for change in ("LCMScheduler", "TCDScheduler"):
        index.write_text(json.dumps(said | {"scheduler": ["diffusers", change]}))
        scheduler.write_text(json.dumps(config | {"_class_name": change}))
        with pytest.raises(ModelError, match=f"distilled: {change}") as caught:
            Erase().plan(params_of("surgical"), SCOPE, open_model(folder))
        assert "method: uce" in caught.value.hint


def test_a_model_that_says_nan_is_refused_before_it_is_trained(
    model: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: Callable[..., torch.Tensor] = Denoiser.__call__
    monkeypatch.setattr(Denoiser, "__call__", lambda *args: said(*args) * float("nan"))
    with pytest.raises(ModelError, match="NaN or infinity before anything is trained"):
        train(model, tmp_path, "surgical")


def test_a_training_that_diverges_ends_with_advice(model: State, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no longer numbers") as caught:
        train(model, tmp_path, "surgical", lr=1.0, steps=200, parts="full", clip=1e6, lam_keep=1e6)
    assert "Lower lr" in caught.value.hint


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (("a box and a pistol",), "'a box and a pistol' has to be kept and says 'pistol', as 'pistol' is called"),
        (("a dog", "a Gun"), "'a Gun' has to be kept and says 'gun', as 'pistol' is called"),
        (("a fire with smoke",), "'a fire with smoke' has to be kept and says 'smoke', as 'cigarette' is called"),
        ((), "there is nothing to keep"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_contradictions_are_found_by_the_plan_and_by_the_run(
    model: State, tmp_path: Path, method: str, prompts: tuple[str, ...], message: str
) -> None:
    keep = (*SCOPE.keep, concept("box", *prompts)) if prompts else ()
    scope = Scope(concepts=SCOPE.concepts, keep=keep)
    with pytest.raises(UsageError, match=message):
        Erase().plan(params_of(method), scope, model)
    with pytest.raises(UsageError, match=message):
        train(model, tmp_path, method, scope)


def test_words_that_only_begin_like_what_goes_are_kept(model: State) -> None:
    keep = (*SCOPE.keep, concept("stones", "gunstones and a smokestack"))
    plan = Erase().plan(params_of("surgical"), Scope(concepts=SCOPE.concepts, keep=keep), model)
    assert not any("has to be kept" in note for note in plan.notes)


@pytest.mark.parametrize("method", ["uce", "rece", *METHODS])
@pytest.mark.parametrize(
    ("words", "named"),
    [("a pistol", "pistol"), ("a gun", "pistol"), ("Pistols", "pistol"), ("the cigarettes", "cigarette")],
)
def test_a_target_that_is_to_go_itself_is_found_by_the_plan(model: State, method: str, words: str, named: str) -> None:
    params = EraseParams.parse({"method": method, "targets": {"cigarette": words, "pistol": "robot"}})
    with pytest.raises(UsageError, match=f"names '{named}', which is to go itself"):
        Erase().plan(params, SCOPE, model)


@pytest.mark.parametrize(
    ("words", "said"), [("an old pistol", "pistol"), ("toy gun", "gun"), ("Pistol of toy", "pistol")]
)
def test_a_target_that_is_the_concept_with_more_words_is_refused_by_trainings_and_noted_by_closed_forms(
    model: State, words: str, said: str
) -> None:
    targets = {**TARGETS, "pistol": words}
    for method in METHODS:
        with pytest.raises(UsageError, match=f"says '{said}', as that concept is called: method {method}"):
            Erase().plan(EraseParams.parse({"method": method, "targets": targets}), SCOPE, model)
    noted = Erase().plan(EraseParams(targets=targets), SCOPE, model).notes
    assert sum(note.startswith(f"the target '{words}' of 'pistol' says '{said}'") for note in noted) == 1


@pytest.mark.parametrize("method", ["uce", *METHODS])
def test_the_plural_of_the_concept_in_a_longer_target_is_noted(model: State, method: str) -> None:
    params = EraseParams.parse({"method": method, "targets": {**TARGETS, "pistol": "holster without pistols"}})
    assert any(
        "of 'pistol' says 'pistol', as that concept" in note for note in Erase().plan(params, SCOPE, model).notes
    )


@pytest.mark.parametrize("method", ["uce", *METHODS])
@pytest.mark.parametrize("both", [True, False], ids=["with.concepts", "concepts of the step"])
def test_a_target_that_goes_by_another_step_is_found_by_the_plan(model: State, method: str, *, both: bool) -> None:
    one, other = SCOPE.concepts
    scope = SCOPE if both else SCOPE.model_copy(update={"concepts": (one,), "others": (other,)})
    chosen = {"concepts": ["cigarette"]} if both else {}
    params = EraseParams.parse({"method": method, "targets": {"cigarette": "pistol"}, **chosen})
    with pytest.raises(UsageError, match="names 'pistol', which is to go itself"):
        Erase().plan(params, scope, model)


@pytest.mark.parametrize(("method", "draws"), [("uce", ()), *((name, ("cigarette", "pistol")) for name in METHODS)])
def test_trainings_draw_their_concepts_with_the_model(model: State, method: str, draws: tuple[str, ...]) -> None:
    assert Erase().plan(EraseParams(method=method, targets=TARGETS), SCOPE, model).draws == draws


@pytest.mark.parametrize("method", ["uce", "rece", *METHODS])
def test_the_plan_notes_a_kept_prompt_with_the_plural_of_what_goes(model: State, method: str) -> None:
    keep = (*SCOPE.keep, concept("ashtray", "an ashtray with cigarettes"))
    plan = Erase().plan(EraseParams(method=method, targets=TARGETS), Scope(concepts=SCOPE.concepts, keep=keep), model)
    assert any("'an ashtray with cigarettes' has to be kept and says 'cigarette'" in note for note in plan.notes)


def test_the_plan_of_a_closed_form_notes_a_kept_prompt_that_names_what_goes(model: State) -> None:
    keep = (*SCOPE.keep, concept("pair", "a cigarette and a dog"))
    plan = Erase().plan(EraseParams(targets=TARGETS), Scope(concepts=SCOPE.concepts, keep=keep), model)
    assert any("'a cigarette and a dog' has to be kept and says 'cigarette'" in note for note in plan.notes)
    plain = Erase().plan(EraseParams(targets=TARGETS), SCOPE, model)
    assert not any("has to be kept" in note for note in plain.notes)


@pytest.mark.parametrize("method", METHODS)
def test_the_plan_says_how_many_steps_many_concepts_take(model: State, method: str) -> None:
    many = Scope(concepts=tuple(concept(f"thing {i}") for i in range(5)), keep=SCOPE.keep)
    targets = {one.id: "dog" for one in many.concepts}
    wanted = {"surgical": 63, "robust": 500}[method]
    few = Erase().plan(EraseParams(method=method, targets=targets), many, model)
    assert any(f"set {method}.steps to {wanted} or more" in note for note in few.notes)
    given = EraseParams.parse({"method": method, "targets": targets, method: {"steps": wanted}})
    for plan in (Erase().plan(given, many, model), Erase().plan(params_of(method), SCOPE, model)):
        assert not any("or more" in note for note in plan.notes)


def test_a_search_whose_losses_are_no_numbers_is_named(model: State, tmp_path: Path) -> None:
    def broken(predicted: torch.Tensor, target: torch.Tensor, attacks: int) -> torch.Tensor:
        return inner_losses(predicted, target, attacks) * float("nan")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("publisher_erase.attackers.inner_losses", broken)
        with pytest.raises(UsageError, match="losses or gradients are no longer numbers, in step 1") as caught:
            train(model, tmp_path, "robust")
    assert "Lower robust.attack.lr" in caught.value.hint


def test_a_fresh_search_that_fails_at_the_end_takes_away_its_curve_alone(model: State, tmp_path: Path) -> None:
    plain = train(model, tmp_path / "a", "robust")
    find = StatesAttacker.find

    def failing(attacker: StatesAttacker, generator: torch.Generator, steps: int | None = None) -> Any:
        if steps is not None:
            raise UsageError("the attackers' losses are no longer numbers")
        return find(attacker, generator)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StatesAttacker, "find", failing)
        ctx = train(model, tmp_path / "b", "robust")
    assert "there is no curve of fresh attackers: the attackers' losses are no longer numbers" in ctx.warnings
    assert {curve.name for curve in plain.curves} - {curve.name for curve in ctx.curves} == {"fresh attackers' loss"}
    assert all(torch.equal(value, plain.tensors[name]) for name, value in ctx.tensors.items())


def test_half_of_one_kept_row_is_refused() -> None:
    with pytest.raises(ValueError, match="set keep_batch to 2, or lam_keep_empty to 0"):
        EraseParams.parse({"method": "robust", "robust": {"keep_batch": 1}})
    assert EraseParams.parse({"method": "robust", "robust": {"keep_batch": 1, "lam_keep_empty": 0.0}}).robust
    assert EraseParams.parse({"method": "surgical", "surgical": {"keep_batch": 1}}).surgical


@pytest.mark.parametrize("name", ["lr", "lam_uncond", "lam_keep", "lam_keep_empty", "clip", "guidance"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_that_are_no_numbers_are_refused(name: str, value: float) -> None:
    for method in METHODS:
        with pytest.raises(ValueError, match="finite number"):
            EraseParams.parse({"method": method, method: {name: value}})
    with pytest.raises(ValueError, match="finite number"):
        EraseParams.parse({"lam": value})


def test_parameters_of_another_method_are_refused() -> None:
    with pytest.raises(ValueError, match="surgical has parameters of method: surgical"):
        EraseParams.parse({"method": "uce", "surgical": {"steps": 3}})


def test_the_plan_says_steps_rows_and_searches(model: State) -> None:
    plan = Erase().plan(params_of("robust"), SCOPE, model)
    (cost,) = (note for note in plan.notes if "rows of trajectories" in note)
    assert "4 steps on 22 rows of trajectories" in cost
    assert "4 searches of 2 steps by attackers (derived, states)" in cost


def test_deciding_twice_decides_once(model: State) -> None:
    once = Erase().decide(EraseParams(method="robust"), SCOPE, model)
    assert once.robust is not None
    assert (once.robust.steps, once.preserve_scale) == (200, 10.0)
    assert Erase().decide(once, SCOPE, model) == once
