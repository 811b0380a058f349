from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from mask_cases import SCOPE, mask_of, parse, run

from publisher.api import Model, Scope, UsageError
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.process import read_process
from publisher.api.freeze_mask import FILE, Candidate, architecture_sha256, count, random_mask
from publisher.engine.context import RunningStep
from publisher.testing.running import StoppedError, StoppingAt
from publisher_freeze_mask import publisher_register_steps
from publisher_freeze_mask.data import CaptionedImages, MaskData
from publisher_freeze_mask.plan import candidates
from publisher_freeze_mask.step import FreezeMaskStep
from publisher_freeze_mask.train import fine_tunings


@pytest.fixture(scope="module")
def plain(model: Model, tmp_path_factory: pytest.TempPathFactory) -> RunningStep:
    """A finished run without options. Do not change it."""
    return run(model, tmp_path_factory.mktemp("plain"))


def test_it_is_registered_and_asks_for_references() -> None:
    assert publisher_register_steps() == (FreezeMaskStep,)
    assert FreezeMaskStep.references


def test_the_artifact_names_what_is_frozen_of_which_weights(model: Model, plain: RunningStep) -> None:
    mask = mask_of(plain)
    headers = model.tensors("unet")
    assert mask.model == model.digest
    assert mask.component == "unet"
    assert mask.architecture == architecture_sha256({name: info.shape for name, info in headers.items()})
    assert mask.tensors.total == len(headers)
    assert mask.parameters.total == sum(info.parameters for info in headers.values())
    assert mask.parameters.frozen == count(mask.rows, mask.candidates)
    assert mask.recipe["illegal"] == ["skull"]
    assert mask.recipe["innocent"] == ["ghost"]
    for tensor in mask.frozen:
        raw = model.read("unet", tensor.name).numpy().tobytes()
        assert tensor.sha256["F32"] == hashlib.sha256(raw).hexdigest()


def test_the_ratio_of_parameters_is_met_to_one_tensor(plain: RunningStep) -> None:
    mask = mask_of(plain)
    free = min(one.parameters for name, one in mask.candidates.items() if name not in mask.rows)
    assert 0 <= 0.3 * mask.parameters.total - mask.parameters.frozen < free


def test_the_ratio_of_tensors_is_met_to_one_tensor(model: Model, tmp_path: Path) -> None:
    mask = mask_of(run(model, tmp_path, count="tensors"))
    assert mask.tensors.frozen == int(0.3 * len(mask.candidates))


def test_tensors_of_one_axis_are_left_out_unless_they_are_asked_for(model: Model) -> None:
    plain, all_of_them = (candidates(parse(one_d=how), model) for how in ("exclude", "include"))
    assert all(len(one.shape) > 1 for one in plain.values())
    assert set(all_of_them) == set(model.tensors("unet"))
    assert len(all_of_them) - len(plain) > len(plain)


@pytest.mark.parametrize("recipe", ["refined", "random"])
def test_every_recipe_keeps_to_the_budget(model: Model, tmp_path: Path, recipe: str) -> None:
    ctx = run(model, tmp_path, recipe=recipe)
    mask = mask_of(ctx)
    assert 0.25 < mask.parameters.value <= 0.3
    assert any(curve.name.startswith("relaxed mask") for curve in ctx.curves) == (recipe == "refined")


@pytest.mark.slow
def test_the_released_recipe_says_that_it_kept_its_initialisation(model: Model, tmp_path: Path) -> None:
    ctx = run(
        model, tmp_path, recipe="released", count="tensors", swap=True, released={"steps": 12, "c_sparsity": 400.0}
    )
    found = {number.name: number.value for number in ctx.numbers}
    assert found["alike: its initialisation"] == 1
    assert found["alike: sides exchanged"] == 1


def test_a_random_mask_is_one_that_a_control_could_sample(model: Model, tmp_path: Path) -> None:
    mask = mask_of(run(model, tmp_path, recipe="random"))
    sampled = random_mask(mask.candidates, mask.parameters.frozen, torch.Generator().manual_seed(0))
    assert 0.2 < count(sampled, mask.candidates) / mask.parameters.total <= 0.3
    assert sampled != mask.rows


@pytest.mark.parametrize("granularity", ["head", "row"])
def test_parts_of_tensors_can_be_frozen(model: Model, tmp_path: Path, granularity: str) -> None:
    mask = mask_of(run(model, tmp_path, granularity=granularity, ratio=0.5))
    partly = [tensor for tensor in mask.frozen if tensor.rows]
    assert partly
    rows = {end - start for tensor in partly for start, end in tensor.rows}
    units = {mask.candidates[tensor.name].rows for tensor in partly}
    assert all(any(size % unit == 0 for unit in units) for size in rows)
    raw = model.read("unet", partly[0].name)
    kept = torch.cat([raw[a:b] for a, b in partly[0].rows]).numpy().tobytes()
    assert partly[0].sha256["F32"] == hashlib.sha256(kept).hexdigest()


def test_heads_are_those_of_the_block(model_xl: Model) -> None:
    anatomy, config = model_xl.anatomy, {"attention_head_dim": [5, 10, 20]}
    query = "attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert anatomy.heads(f"down_blocks.1.{query}", config) == 10
    assert anatomy.heads(f"up_blocks.0.{query}", config) == 20
    assert anatomy.heads(f"mid_block.{query}", config) == 20
    assert anatomy.heads(f"down_blocks.0.{query}", {"attention_head_dim": 8}) == 8
    found = candidates(parse(granularity="head"), model_xl)
    network = model_xl.config("unet")["attention_head_dim"]
    queries = {name: one for name, one in found.items() if name.endswith("attn1.to_q.weight")}
    assert queries
    for name, one in queries.items():
        assert one.shape[0] // one.rows == anatomy.heads(name, {"attention_head_dim": network}) > 1
    assert found["conv_in.weight"].rows == 0


@pytest.mark.slow
def test_two_runs_give_the_same_bytes_and_another_seed_other_ones(model: Model, tmp_path: Path) -> None:
    first, second, other = (run(model, tmp_path / str(i), seed=i // 2) for i in range(3))
    assert first.artifacts == second.artifacts
    assert first.curves == second.curves
    assert first.curves != other.curves


@pytest.mark.parametrize(
    ("recipe", "step"),
    [  # 4 steps and a score of each of two fine-tunings, then 2 steps of the refinement
        ("path", 4),
        pytest.param("path", 7, marks=pytest.mark.slow),
        pytest.param("refined", 11, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_resumes_to_the_same_bytes(model: Model, tmp_path: Path, recipe: str, step: int) -> None:
    whole = run(model, tmp_path / "whole", recipe=recipe, checkpoint_every=1)
    with pytest.raises(StoppedError):
        run(model, tmp_path / "killed", StoppingAt(step), recipe=recipe, checkpoint_every=1)
    resumed = run(model, tmp_path / "killed", recipe=recipe, checkpoint_every=1)
    assert resumed.artifacts == whole.artifacts
    assert resumed.curves == whole.curves
    assert resumed.numbers == whole.numbers


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_not_used(model: Model, tmp_path: Path) -> None:
    run(model, tmp_path / "one", adapt={"lr": 2e-3})
    ctx = run(model, tmp_path / "one")
    assert any("started again" in warning for warning in ctx.warnings)
    assert ctx.artifacts == run(model, tmp_path / "two").artifacts


@pytest.mark.slow
def test_masks_of_other_seeds_and_of_exchanged_sides_are_compared(model: Model, tmp_path: Path) -> None:
    ctx = run(model, tmp_path, replicas=1, swap=True)
    mask = mask_of(ctx)
    assert set(mask.others) == {"seed-1"}
    assert all(0.25 < count(rows, mask.candidates) / mask.parameters.total <= 0.3 for rows in mask.others.values())
    names = [number.name for number in ctx.numbers]
    assert [name for name in names if name.startswith("alike")] == ["alike: seed-1", "alike: sides exchanged"]


def test_the_report_gets_both_ratios_and_whether_the_scores_add_up(model: Model, tmp_path: Path) -> None:
    ctx = run(model, tmp_path, score={"points": 1, "tolerance": 1e-9})
    found = {number.name: number.value for number in ctx.numbers}
    mask = mask_of(ctx)
    assert found["parameters frozen"] == pytest.approx(mask.parameters.value, rel=1e-8)
    assert found["tensors frozen"] == pytest.approx(mask.tensors.value, rel=1e-8)
    for side in ("illegal", "innocent"):
        assert found[f"{side}: loss fell by"] > 0
        assert f"{side}: scores add up to" in found
    assert any("add up to" in warning for warning in ctx.warnings)
    assert [curve.name for curve in ctx.curves] == ["illegal 1 name 1 loss", "innocent 1 rare 1 loss"]


def test_each_concept_caption_and_seed_has_a_fine_tuning_of_its_own() -> None:
    images = CaptionedImages(torch.zeros(1, 4, 8, 8), ("a skull",))
    data = MaskData(
        {"name": (images,) * 2, "description": (images,) * 2},
        (images,) * 3,
        {},
        Noising(read_process("DDIMScheduler", {})),
    )
    labels = [one.label for one in fine_tunings(parse(adapt={"seeds": 2}), data)]
    assert len(labels) == len(set(labels)) == 2 * (2 * 2 + 3)
    together = [one.label for one in fine_tunings(parse(adapt={"learn": "together"}), data)]
    assert together == ["illegal all name 1", "illegal all description 1", "innocent all rare 1"]
    assert len(fine_tunings(parse(recipe="released", count="tensors"), data)) == 1


def test_what_was_not_trained_has_no_score_and_is_frozen_last(model: Model, tmp_path: Path) -> None:
    mask = mask_of(run(model, tmp_path, adapt={"kind": "cross-attention", "lr": 1e-2}, ratio=0.02))
    assert any(".attn2." in name for name in mask.rows)


def test_a_fine_tuning_that_learns_nothing_ends_the_run_with_advice(model: Model, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learned nothing") as error:
        run(model, tmp_path, adapt={"lr": 1e-12, "steps": 1})
    assert "adapt.steps" in str(error.value)


def test_a_diverging_fine_tuning_is_named(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskData, "loss", lambda *_: torch.tensor(torch.nan, requires_grad=True))
    with pytest.raises(UsageError, match="no longer numbers at step 1"):
        run(model, tmp_path)


def test_an_empty_mask_is_a_warning(model: Model, tmp_path: Path) -> None:
    """Take a network of few tensors: the published penalty throws every logit below zero."""
    ctx = run(model, tmp_path, recipe="released", count="tensors")
    assert mask_of(ctx).frozen == ()
    assert any("nothing is frozen" in warning for warning in ctx.warnings)


def test_the_plan_says_what_tiny_tensors_hold_and_what_the_mask_is_bound_to(model: Model) -> None:
    notes = FreezeMaskStep().plan(parse(), SCOPE, model).notes
    assert any("later step" in note for note in notes)
    assert any("have one axis" in note for note in notes)
    counted = FreezeMaskStep().plan(parse(count="tensors", recipe="released", rare=["sks"]), SCOPE, model).notes
    assert len(counted) == len(notes) + 3


def test_nothing_to_keep_is_refused(model: Model) -> None:
    with pytest.raises(UsageError, match="nothing to keep"):
        FreezeMaskStep().plan(parse(), Scope(concepts=SCOPE.concepts), model)


@pytest.mark.parametrize(("field", "wrong", "near"), [("concepts", "skul", "skull"), ("innocents", "gost", "ghost")])
def test_a_concept_that_is_none_is_named_with_a_near_one(model: Model, field: str, wrong: str, near: str) -> None:
    with pytest.raises(UsageError, match=wrong) as error:
        FreezeMaskStep().plan(parse(**{field: [wrong]}), SCOPE, model)
    assert f"Did you mean {near!r}?" in str(error.value)


@pytest.mark.slow
def test_sdxl_gets_a_mask(model_xl: Model, tmp_path: Path) -> None:
    data: dict[str, Any] = {"images": 2, "keep_images": 2, "granularity": "head"}
    mask = mask_of(run(model_xl, tmp_path, **data, adapt={"lr": 1e-3}))
    assert 0.25 < mask.parameters.value <= 0.3
    assert isinstance(mask.candidates["conv_in.weight"], Candidate)
    assert FILE == "freeze-mask.json"
