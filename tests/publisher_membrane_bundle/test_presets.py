"""What the step decides where a manifest names nothing but concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from publisher.api import Concept, ModelInfo, Scope
from publisher.engine.plan import locate_model
from publisher.registry import load_registry
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import notes, targets
from publisher_membrane_bundle.presets import resolve


@pytest.fixture(scope="module")
def model() -> ModelInfo:
    found = locate_model("embedded:emoji", load_registry(), Path(), fetch=False)
    assert found is not None
    return found.folder


def concept(name: str) -> Concept:
    return Concept(id=name, name=name, prompts=(f"a {name} emoji",), label=name)


SCOPE = Scope(concepts=(concept("skull"), concept("bomb")), keep=tuple(map(concept, ("pizza", "ghost", "alien"))))


def decided(model: ModelInfo, **data: Any) -> MembraneParams:
    return resolve(MembraneParams.parse(data), SCOPE, model)


def test_each_concept_that_is_trained_goes_to_its_nearest_kept_neighbour(model: ModelInfo) -> None:
    found = decided(model, **{"from": {"bomb": "bomb.safetensors"}})
    assert found.surrogates == {"skull": "ghost"}
    (target,) = targets(found, SCOPE.concepts)
    assert (target.texts, target.surrogates) == (("a skull emoji",), ("a ghost emoji",))


def test_what_is_given_by_name_wins(model: ModelInfo) -> None:
    found = decided(model, surrogates={"skull": ""}, steps=10, transport={"softness": 0.1})
    assert isinstance(found.surrogates, dict)
    assert found.surrogates["skull"] == ""
    assert (found.steps, found.warmup, found.lr) == (10, 10, 1e-3)
    assert (found.transport.threshold, found.transport.softness) == (0.9, 0.1)


@pytest.mark.parametrize("preset", ["small", "large", "paper"])
def test_what_is_decided_is_decided_once(model: ModelInfo, preset: str) -> None:
    found = decided(model, preset=preset)
    assert resolve(MembraneParams.parse(found.as_json()), SCOPE, model) == found


def test_a_style_is_pushed_harder_where_the_prompt_opens_its_membrane(model: ModelInfo) -> None:
    style = Concept(id="noto", name="noto", kind="style", prompts=("a pizza emoji in noto style",), label="noto")
    scope = Scope(concepts=(concept("skull"), style), keep=(*SCOPE.keep, style.model_copy(update={"id": "blob"})))
    found = resolve(MembraneParams.parse({}), scope, model)
    assert (found.lr, found.eta, found.lam) == (3e-3, 2.0, 3.0)
    assert any("leaves a style" in note for note in notes(found, scope.concepts))
    assert not any("leaves a style" in note for note in notes(found, SCOPE.concepts))
    merged = resolve(MembraneParams.parse({"mode": "merge"}), scope, model)
    assert (merged.lr, merged.eta, merged.lam) == (1e-3, 1.0, 30.0)


@pytest.mark.parametrize(("texts", "expected"), [(3, 16), (12, 24), (100, 32)])
def test_every_text_gets_a_trajectory_as_far_as_that_goes(model: ModelInfo, texts: int, expected: int) -> None:
    many = [f"a {{}} emoji {number}" for number in range(texts)]
    going = (concept("skull"), concept("bomb"))
    going = tuple(one.model_copy(update={"prompts": tuple(text.format(one.name) for text in many)}) for one in going)
    found = resolve(MembraneParams.parse({}), Scope(concepts=going, keep=SCOPE.keep), model)
    assert found.pool == expected
    assert resolve(MembraneParams.parse({"pool": 2}), Scope(concepts=going, keep=SCOPE.keep), model).pool == 2


@pytest.mark.parametrize("preset", ["small", "large"])
def test_by_default_most_prompts_leave_a_membrane_shut(model: ModelInfo, preset: str) -> None:
    assert not any("threshold" in note for note in notes(decided(model, preset=preset), SCOPE.concepts))


def test_the_papers_values_are_the_published_ones(model: ModelInfo) -> None:
    found = decided(model, preset="paper")
    assert (found.trainer, found.train_on, found.dynamic_resolution) == ("exact", "name", True)
    assert (found.steps, found.lr, found.warmup, found.cycles, found.lam) == (3000, 1e-4, 500, 3, 1000.0)
    assert (found.transport.threshold, found.transport.stop_words) == (0.0, ())
    assert found.surrogates == {"skull": "", "bomb": ""}
    assert decided(model, preset="paper", surrogates="auto").surrogates == {"skull": "ghost", "bomb": "pizza"}


def test_merged_membranes_have_no_threshold_to_warn_of(model: ModelInfo) -> None:
    assert not any("transport" in note for note in notes(decided(model, mode="merge"), SCOPE.concepts))
