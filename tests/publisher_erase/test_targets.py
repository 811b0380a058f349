"""Targets that a manifest leaves open: the nearest kept object, the farthest kept style, never what goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.api import Concept, ModelInfo, Scope
from publisher.engine.plan import locate_model
from publisher.registry import load_registry
from publisher_emoji import vocabulary
from publisher_erase.params import EraseParams
from publisher_erase.step import Erase
from publisher_erase.targets import choose_targets


@pytest.fixture(scope="module")
def model() -> ModelInfo:
    found = locate_model("embedded:emoji", load_registry(), Path(), fetch=False)
    assert found is not None
    return found.folder


def concept(name: str, kind: str = "object") -> Concept:
    return Concept.parse({"id": name.replace(" ", "-"), "name": name, "kind": kind, "prompts": [name], "label": name})


def scope_of(*gone: str, styles: tuple[str, ...] = ()) -> Scope:
    words = vocabulary()
    kept = [concept(name) for name in words.object_names if name not in gone]
    kept += [concept(name, "style") for name in words.style_names if name not in styles]
    return Scope(concepts=(*map(concept, gone), *(concept(name, "style") for name in styles)), keep=tuple(kept))


def test_the_nearest_kept_concept_of_the_kind_is_taken(model: ModelInfo) -> None:
    found = choose_targets(EraseParams(), scope_of("skull", styles=("noto",)), model)
    assert found == {"skull": "ghost", "noto": "twemoji"}


def test_what_goes_is_no_target(model: ModelInfo) -> None:
    assert choose_targets(EraseParams(), scope_of("skull", "ghost"), model)["skull"] not in {"ghost", "skull"}


def test_a_name_that_holds_the_concepts_word_is_no_target(model: ModelInfo) -> None:
    assert choose_targets(EraseParams(), scope_of("knife"), model)["knife"] == "hammer"


def test_what_the_manifest_says_stands_and_the_rest_is_chosen(model: ModelInfo) -> None:
    params = EraseParams.parse({"targets": {"skull": ""}})
    decided = Erase().decide(params, scope_of("skull", "dog"), model)
    assert decided.targets == {"skull": "", "dog": "horse"}
    assert Erase().decide(decided, scope_of("skull", "dog"), model) == decided


def test_where_nothing_of_the_kind_stays_it_is_the_empty_prompt(model: ModelInfo) -> None:
    scope = Scope(concepts=(concept("skull"),), keep=(concept("noto", "style"),))
    assert choose_targets(EraseParams(), scope, model) == {"skull": ""}
