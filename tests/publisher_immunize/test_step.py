from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from immunize_cases import SCOPE, SHORT, context, run
from safetensors.torch import load_file, save_file

from publisher.api import Concept, Model, ModelError, Scope, UsageError, cross_attention
from publisher.api.diffusion.denoiser import Denoiser
from publisher.model.state import Delta, State
from publisher.testing.running import StoppedError, StoppingAt
from publisher.testing.tiny import open_model
from publisher_immunize import publisher_register_steps
from publisher_immunize.adversary import Adversary
from publisher_immunize.data import gather, rare_words
from publisher_immunize.denoiser import NOTHING, Denoising, PatchedDenoiser
from publisher_immunize.params import ImmunizeParams, Inner
from publisher_immunize.presets import resolve
from publisher_immunize.step import Immunize
from publisher_immunize.train import train
from support.tiny_families import TINY

NEW_WORDS: dict[str, Any] = {
    "method": "imma",
    "outer": "denoiser",
    "inner": ["lora", "full"],
    "inner_lr": 1e-3,
    "inner_choice": "restart",
    "captions": {"rare": 0.75, "name": 0.25},
    "rare": 5,
    "keep_captions": "words",
    "lr_schedule": "cosine",
}
OUTERS = {"cross-attention-kv": 8, "cross-attention": 20, "attention": 40}


def test_it_is_registered_and_asks_for_references() -> None:
    assert publisher_register_steps() == (Immunize,)
    assert Immunize.references


@pytest.mark.parametrize(
    "data",
    [
        {"inner": "full", "steps": 1},
        {"inner": "lora", "objective": "hold", "mu": 1.0},
        {"inner": "dreambooth", "steps": 1},
        {"inner": "textual-inversion"},
        {"inner": ["cross-attention", "lora"], "restart": 0},
        {"method": "imma", "first_order": True},
        {"inner_order": 2, "steps": 1},
    ],
    ids=str,
)
def test_every_way_moves_the_weights_that_the_plan_names(model: Model, tmp_path: Path, data: dict[str, Any]) -> None:
    ctx = run(model, tmp_path, **data)
    assert not any(torch.equal(value, model.read(*name)) for name, value in ctx.tensors.items())


@pytest.mark.parametrize("outer", OUTERS)
def test_the_outer_set_is_the_exported_set(model: Model, tmp_path: Path, outer: str) -> None:
    ctx = run(model, tmp_path, outer=outer, steps=1)
    assert len(ctx.changed()["unet"]) == OUTERS[outer]


def test_the_full_outer_set_is_every_tensor_of_the_denoiser(model: Model) -> None:
    plan = Immunize().plan(ImmunizeParams.parse({**SHORT, "outer": "denoiser"}), SCOPE, model)
    assert plan.changes == {"unet": sorted(model.tensors("unet"))}


def test_concepts_without_images_of_their_own_are_those_that_the_base_model_generates(model: Model) -> None:
    skull, pizza = SCOPE.concepts
    scope = SCOPE.model_copy(update={"concepts": (skull, pizza.model_copy(update={"images": ("a.png", "b.png")}))})
    assert Immunize().plan(ImmunizeParams.parse(SHORT), scope, model).draws == ("skull",)


def test_drawn_words_are_new_to_the_texts_and_to_the_attacks() -> None:
    texts = ["a Cat, an emoji", "car"]
    words = rare_words(600, torch.Generator().manual_seed(0), texts)
    assert len(set(words)) == 600
    assert {len(word) for word in words} == {3, 4, 5}
    assert not {"sks", "cat", "car", "emoji"} & set(words)
    assert words[:7] == rare_words(7, torch.Generator().manual_seed(0), texts)


def test_names_and_synonyms_of_what_goes_and_stays_are_never_drawn(model: Model, tmp_path: Path) -> None:
    params = resolve(ImmunizeParams.parse({**SHORT, **NEW_WORDS, "images": 2}), SCOPE, model)

    def drawn(scope: Scope) -> list[str]:
        texts = gather(params, scope.concepts, scope.keep, context(model, tmp_path, params, scope)).concepts[0].renamed
        return [lines[0].split()[1] for lines in texts]  # "a WORD emoji"

    first, second, *rest = drawn(SCOPE)
    (skull, pizza), (ghost, cat) = SCOPE.concepts, SCOPE.keep
    scope = SCOPE.model_copy(
        update={
            "concepts": (skull, pizza.model_copy(update={"synonyms": (first.upper(),)})),
            "keep": (ghost, cat.model_copy(update={"name": f"{second} cat"})),
        }
    )
    again = drawn(scope)
    assert again[:3] == rest
    assert not {first, second} & set(again)


def test_concepts_and_kept_images_are_called_by_drawn_words(model: Model, tmp_path: Path) -> None:
    params = resolve(ImmunizeParams.parse({**SHORT, **NEW_WORDS}), SCOPE, model)
    data = gather(params, SCOPE.concepts, SCOPE.keep, context(model, tmp_path, params))
    skull = data.concepts[0]
    called = {skull.under(word).captions["rare"][0] for word in range(5)}
    assert len(called) == 5
    assert not any("skull" in text for text in called)
    generator = torch.Generator().manual_seed(0)
    texts = [text for _ in range(40) for text in data.keep_batch(8, generator).texts]
    lost = sum("skull" in text or "pizza" in text for text in texts) / len(texts)
    own = sum("ghost" in text or "cat" in text for text in texts) / len(texts)
    assert 0.01 < lost < 0.12
    assert 0.45 < own < 0.75
    assert "" in texts


def test_nothing_is_adapted_in_the_share_of_restarts_that_says_so(model: Model, tmp_path: Path) -> None:
    alone = run(model, tmp_path / "a", **NEW_WORDS, unadapted=0.999, steps=1)
    attacked = run(model, tmp_path / "b", **NEW_WORDS, steps=1)
    assert "inner loss" not in {curve.name for curve in alone.curves}
    assert "inner loss" in {curve.name for curve in attacked.curves}
    with pytest.raises(ValueError, match="share of restarts"):
        ImmunizeParams.parse({"unadapted": 0.5})


def test_attackers_in_turn_are_of_every_kind(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []

    class Seen(Adversary):
        def __init__(self, kind: Inner, *rest: Any) -> None:
            kinds.append(kind)
            super().__init__(kind, *rest)

    monkeypatch.setattr("publisher_immunize.train.Adversary", Seen)
    run(model, tmp_path, **NEW_WORDS | {"inner_choice": "turns"}, restart=1, steps=4)
    assert kinds == ["lora", "full", "lora", "full"]


@pytest.mark.slow
def test_sdxl_with_its_pooled_text_is_immunised(model_xl: Model, tmp_path: Path) -> None:
    ctx = run(model_xl, tmp_path, images=2, keep_images=1, steps=1, merge={"texts": 1}, captions=["name"])
    assert len(ctx.changed()["unet"]) == 5 * len(cross_attention(model_xl))


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(model: Model, tmp_path: Path) -> None:
    first, second = (run(model, tmp_path / name, mu=0.5).tensors for name in ("a", "b"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_another_thread_for_what_is_kept_changes_no_bit(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of what is encoded before
    try:
        beside = run(model, tmp_path / "a", steps=2, lam=2.0)
        monkeypatch.setattr("publisher_immunize.train.is_small", lambda *_: False)
        alone = run(model, tmp_path / "b", steps=2, lam=2.0)
    finally:
        torch.set_num_threads(before)
    assert beside.curves == alone.curves
    assert all(torch.equal(value, alone.tensors[name]) for name, value in beside.tensors.items())


@pytest.mark.slow
def test_a_falling_rate_ends_at_nearly_nothing(model: Model, tmp_path: Path) -> None:
    constant = run(model, tmp_path / "a", steps=3).tensors
    falling = run(model, tmp_path / "b", steps=3, lr_schedule="linear").tensors
    moved = [
        sum(float((value - model.read(*name)).abs().sum()) for name, value in tensors.items())
        for tensors in (constant, falling)
    ]
    assert 0 < moved[1] < 0.9 * moved[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [
        {"mu": 0.5},
        {"inner": ["lora", "cross-attention"], "restart": 0},
        {"inner": "full", "restart": 2},
        {**NEW_WORDS, "restart": 2},
        {**NEW_WORDS, "unadapted": 0.9, "restart": 3},
    ],
    ids=str,
)
def test_a_killed_run_resumes_to_the_same_bytes(model: Model, tmp_path: Path, data: dict[str, Any]) -> None:
    whole = run(model, tmp_path / "whole", steps=4, checkpoint_every=1, **data)
    with pytest.raises(StoppedError):
        run(model, tmp_path / "killed", progress=StoppingAt(3), steps=4, checkpoint_every=1, **data)
    resumed = run(model, tmp_path / "killed", steps=4, checkpoint_every=1, **data)
    assert all(torch.equal(value, resumed.tensors[name]) for name, value in whole.tensors.items())
    assert resumed.curves == whole.curves


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_not_used(model: Model, tmp_path: Path) -> None:
    run(model, tmp_path / "one", checkpoint_every=1, lam=0.5)
    ctx = run(model, tmp_path / "one", checkpoint_every=1)
    fresh = run(model, tmp_path / "two", checkpoint_every=1)
    assert any("the training started again" in warning for warning in ctx.warnings)
    assert all(torch.equal(value, ctx.tensors[name]) for name, value in fresh.tensors.items())


@pytest.mark.slow
def test_the_exported_model_has_the_loss_of_the_trained_one(model: State, tmp_path: Path) -> None:
    ctx = run(model, tmp_path)
    ctx.save(tmp_path / "result")
    exported = model.after(Delta.of(tmp_path / "result" / "delta", {"unet": ""}))
    params = resolve(ImmunizeParams.parse(SHORT), SCOPE, model)
    trained = train(
        context(model, tmp_path / "again", params), params, SCOPE.concepts, SCOPE.keep, ctx.changed()["unet"]
    )
    losses = []
    for state, weights in ((exported, {}), (model, trained.weights)):
        host = PatchedDenoiser(Denoiser.load(state, torch.device("cpu"), torch.float32))
        denoising = Denoising(
            host, gather(params, SCOPE.concepts, SCOPE.keep, context(model, tmp_path, params)), params
        )
        batch = denoising.data.batch(denoising.data.concepts, "name", (4, 2), torch.Generator().manual_seed(0))
        with torch.no_grad():
            losses.append(float(host.run(weights, NOTHING, lambda b=denoising, r=batch: b.losses(r)).mean()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.slow
def test_a_run_in_bfloat16_writes_what_it_trained_in_float32(model: Model, tmp_path: Path) -> None:
    ctx = run(model, tmp_path, dtype="bfloat16", steps=1)
    for name, value in ctx.tensors.items():
        assert value.dtype == torch.float32
        assert not torch.equal(value, value.bfloat16().float()), name


def test_changes_that_rounding_takes_away_are_counted(tmp_path: Path) -> None:
    folder = TINY["stable-diffusion-1"](tmp_path / "model")
    (path,) = (folder / "unet").glob("*.safetensors")
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    ctx = run(open_model(folder), tmp_path / "run", steps=1, lr=1e-6, weight_decay=0.0)
    (lost,) = (one for one in ctx.numbers if "rounding" in one.name)
    assert 0.5 < lost.value <= 1
    assert all(value.dtype == torch.float16 for value in ctx.tensors.values())


def test_losses_and_gradients_are_in_the_report(model: Model, tmp_path: Path) -> None:
    ctx = run(model, tmp_path, mu=1.0)
    names = [curve.name for curve in ctx.curves]
    assert names == ["concept loss", "prior loss", "keep loss", "innocent loss", "gradient norm", "inner loss"]
    assert all(len(curve.x) == 3 for curve in ctx.curves)
    assert "outer steps" in [number.name for number in ctx.numbers]


def test_nothing_to_keep_is_refused_unless_nothing_needs_it(model: Model, tmp_path: Path) -> None:
    alone = Scope(concepts=SCOPE.concepts)
    with pytest.raises(UsageError, match="nothing to keep"):
        Immunize().plan(ImmunizeParams(), alone, model)
    run(model, tmp_path, scope=alone, steps=1, prior=0.0, lam=0.0)


@pytest.mark.parametrize(
    ("said", "prompt", "data"),
    [
        ("skull", "a Skull on a box", {"prior": 0.0}),
        ("death head", "a death head moth", {"lam": 0.0}),
        ("pizza", "pizza", {"method": "imma", "lam": 0.0, "prior": 0.0, "inner": "dreambooth"}),
        ("skull", "a skull", {"lam": 0.0, "prior": 0.0}),
    ],
    ids=["lam holds", "prior holds", "dreambooth", "the merge holds"],
)
def test_a_prompt_to_keep_that_names_what_is_worked_against_is_refused(
    model: Model, tmp_path: Path, said: str, prompt: str, data: dict[str, Any]
) -> None:
    scope = SCOPE.model_copy(update={"keep_prompts": (*SCOPE.keep_prompts, prompt)})
    params = ImmunizeParams.parse({**SHORT, **data})
    message = f"the prompt '{prompt}' has to be kept and says '{said}'"
    with pytest.raises(UsageError, match=message):
        Immunize().plan(params, scope, model)
    with pytest.raises(UsageError, match=message):
        Immunize().run(params, context(model, tmp_path, params, scope))


def test_prompts_that_nothing_holds_or_with_a_plural_are_noted_alone(model: Model) -> None:
    free = ImmunizeParams.parse({**SHORT, "method": "imma", "lam": 0.0, "prior": 0.0})
    for params, prompt in ((free, "a skull"), (ImmunizeParams.parse(SHORT), "two skulls")):
        scope = SCOPE.model_copy(update={"keep_prompts": (prompt,)})
        (note,) = (note for note in Immunize().plan(params, scope, model).notes if "has to be kept" in note)
        assert note.startswith(f"the prompt '{prompt}' has to be kept and says 'skull', as 'skull' is called")
    plain = Immunize().plan(ImmunizeParams.parse(SHORT), SCOPE, model).notes
    assert not any("has to be kept" in note for note in plain)


def test_a_concept_that_is_none_is_named_with_a_near_one(model: Model) -> None:
    with pytest.raises(UsageError, match="skul") as error:
        Immunize().plan(ImmunizeParams(concepts=("skul",)), SCOPE, model)
    assert "Did you mean 'skull'?" in str(error.value)


def test_texts_that_cannot_be_merged_end_the_run_before_it_trains(model: Model, tmp_path: Path) -> None:
    long = " ".join(["cat pizza ghost skull dog fish sun moon tree car boat ball shoe"] * 2)
    many = Concept(id="skull", name="skull", prompts=(f"a skull {long}"[:60], f"skull {long}"[5:65]), label="skull")
    scope = SCOPE.model_copy(update={"concepts": (many,)})
    with pytest.raises(UsageError, match="cannot tell"):
        run(model, tmp_path, scope=scope, merge={"condition": 10, "ridge": 1e-12})


def test_another_denoiser_than_the_family_says_is_refused(model: Model) -> None:
    class Odd:
        anatomy = model.anatomy

        def tensors(self, component: str) -> dict[str, Any]:
            return {}

        def config(self, component: str) -> Any:
            return model.config(component)

    with pytest.raises(ModelError, match="has no layer attn2"):
        Immunize().plan(ImmunizeParams(), SCOPE, Odd())  # type: ignore[arg-type]
