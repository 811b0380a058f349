"""What the step decides where a manifest names nothing but concepts."""

from __future__ import annotations

from typing import Any

import pytest
from immunize_cases import GHOST, SCOPE, SKULL

from publisher.api import ModelInfo, Scope
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.plan import notes
from publisher_immunize.presets import resolve
from support.anatomies import model_of_size

TINY, BIG, XL = model_of_size(8), model_of_size(64), model_of_size(128, "stable-diffusion-xl")
SPOKEN = Scope(concepts=(SKULL,), keep=(GHOST,))


def decided(model: ModelInfo, scope: Scope = SCOPE, **data: Any) -> ImmunizeParams:
    return resolve(ImmunizeParams.parse(data), scope, model)


def is_destructive(params: ImmunizeParams) -> bool:
    return any("destroy" in note for note in notes(params, SCOPE.concepts, SCOPE))


@pytest.mark.parametrize("model", [TINY, BIG, XL], ids=["small", "large", "xl"])
def test_the_destructive_objective_is_asked_for_by_name_alone(model: ModelInfo) -> None:
    assert not is_destructive(decided(model))
    assert is_destructive(decided(model, preset="paper"))
    assert is_destructive(decided(model, bound=None))
    assert not is_destructive(decided(model, preset="paper", bound=1.0))


@pytest.mark.parametrize("mode", ["relearning", "personalization"])
@pytest.mark.parametrize("preset", ["small", "large", "paper"])
def test_a_preset_leaves_nothing_open_and_is_decided_once(preset: str, mode: str) -> None:
    found = decided(BIG, preset=preset, mode=mode)
    assert None not in (found.inner_lr, found.images, found.keep_images, found.steps, found.batch, found.lr)
    assert resolve(found, SCOPE, BIG) == found
    assert resolve(ImmunizeParams.parse(found.as_json()), SCOPE, TINY) == found


def test_the_papers_values_are_the_published_ones() -> None:
    found = decided(TINY, preset="paper")
    assert (found.method, found.inner, found.inner_rule, found.outer) == ("mima", "full", "sgd", "cross-attention")
    assert (found.inner_lr, found.lr, found.steps, found.images, found.prior) == (1e-5, 3e-5, 500, 20, 1.0)
    assert decided(TINY, preset="paper", mode="personalization").lr == 2e-5


def test_xl_is_trained_at_half_the_rate() -> None:
    assert decided(XL).lr == decided(BIG).lr / 2


def test_the_whole_denoiser_is_trained_against_words_that_are_drawn() -> None:
    found = decided(TINY, SPOKEN, outer="denoiser")
    assert (found.inners, found.inner_choice, found.keep_captions) == (("lora", "full"), "restart", "words")
    assert (found.rare, found.check.captions, found.delay) == (48, "rare", 2.5)
    assert decided(TINY, SPOKEN).rare == ("xjy", "qvz")


def test_on_a_large_model_the_method_is_the_same_and_its_plan_says_that_nobody_tried_it() -> None:
    of_size = {
        "inner_lr",
        "images",
        "keep_images",
        "batch",
        "prior_batch",
        "steps",
        "lr",
        "preset",
        "check",
        "innocents",
    }
    small, large = (decided(model, SPOKEN, outer="denoiser").as_json() for model in (TINY, BIG))
    assert {name for name in small if small[name] != large[name]} <= of_size
    assert large["lr"] == decided(BIG).lr
    assert large["check"]["captions"] == "rare"
    assert large["inner_lr"] == {"lora": 1e-4, "full": 1e-5}
    assert [is_untried(decided(model, outer="denoiser")) for model in (TINY, BIG, XL)] == [False, True, True]
    assert not is_untried(decided(BIG))


def is_untried(params: ImmunizeParams) -> bool:
    return any("never tried" in note for note in notes(params, SCOPE.concepts, SCOPE))


@pytest.mark.parametrize("data", [{"inner": "lora"}, {"inner_lr": {"full": 1e-6}}, {"inner_order": 2}], ids=str)
def test_a_large_models_values_go_with_any_attacker(data: dict[str, Any]) -> None:
    found = decided(BIG, outer="denoiser", **data)
    assert all(found.rate(kind) > 0 for kind in found.inners)


def test_what_is_given_by_name_wins() -> None:
    found = decided(TINY, steps=7, check={"seeds": 5}, prior=1.0)
    assert (found.preset, found.steps, found.prior, found.check.seeds) == ("small", 7, 1.0, 5)
    assert found.check.evaluation_steps == (0, 8, 16, 32)


@pytest.mark.parametrize(
    "data",
    [
        {"inner": "dreambooth"},
        {"inner": ["lora", "textual-inversion"]},
        {"inner_lr": {"full": 1e-4}},
        {"inner_lr": 1e-4},
        {"inner_order": 2},
    ],
    ids=str,
)
def test_the_small_models_values_go_with_any_attacker(data: dict[str, Any]) -> None:
    found = decided(TINY, **data)
    assert all(found.rate(kind) > 0 for kind in found.inners)


def test_tests_write_synonyms_where_every_concept_has_some() -> None:
    assert decided(TINY, SPOKEN).check.captions == "synonym"
    assert decided(TINY).check.captions == "name"  # pizza has none
    assert decided(TINY, concepts=["skull"]).check.captions == "synonym"
