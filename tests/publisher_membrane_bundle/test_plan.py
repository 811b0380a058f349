from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from publisher.api import Concept, Scope, UsageError
from publisher_membrane_bundle.claims import membrane_claims
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import choose, notes, targets, texts_of


def concept(name: str, **fields: Any) -> Concept:
    prompts = (f"a {name} emoji", f"a {name} emoji in noto style")
    return Concept(**{"id": name, "name": name, "prompts": prompts, "label": name, **fields})


SKULL = concept("skull", synonyms=("death head",), paraphrases=("a death head emoji",))
BOMB = concept("bomb")
SCOPE = Scope(concepts=(SKULL, BOMB), keep=(concept("ghost"),))


def params(**data: Any) -> MembraneParams:
    return MembraneParams.parse(data)


def test_every_concept_gets_a_membrane_unless_some_are_named() -> None:
    assert choose(params(), SCOPE) == (SKULL, BOMB)
    assert choose(params(concepts=["bomb"]), SCOPE) == (BOMB,)


@pytest.mark.parametrize(
    ("option", "value"),
    [("concepts", ["skul"]), ("from", {"skul": "x"}), ("surrogates", {"skul": "x"}), ("aliases", {"skul": ["x"]})],
)
def test_a_name_that_is_no_concept_is_refused_with_the_option_and_the_nearest(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=option) as caught:
        choose(params(**{option: value}), SCOPE)
    assert "skull" in str(caught.value)


def test_the_name_alone_is_the_target_and_the_empty_prompt_its_surrogate() -> None:
    (target, _) = targets(params(), (SKULL, BOMB))
    assert (target.texts, target.surrogates, target.positives) == (("skull",), ("",), ("skull",))


def test_prompts_are_targets_with_the_surrogate_in_place_of_the_name() -> None:
    wanted = params(train_on="prompts", surrogates={"skull": "ghost"}, positives={"skull": "bone"})
    (target,) = targets(wanted, (SKULL,))
    assert target.texts == SKULL.prompts
    assert target.surrogates == ("a ghost emoji", "a ghost emoji in noto style")
    assert target.positives == ("a bone emoji", "a bone emoji in noto style")


def test_a_text_cannot_be_its_own_surrogate() -> None:
    with pytest.raises(UsageError, match="surrogate"):
        targets(params(surrogates={"skull": "Skull"}), (SKULL,))


def test_what_is_reused_is_not_trained() -> None:
    assert [
        target.concept for target in targets(params(**{"from": {"skull": "skull.safetensors"}}), SCOPE.concepts)
    ] == ["bomb"]


def test_permeability_is_scored_against_what_was_trained_on() -> None:
    assert texts_of(params(), SKULL) == ("skull",)
    assert texts_of(params(train_on="prompts"), SKULL) == SKULL.prompts


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"warmup": 500, "steps": 100}, "warmup"),
        ({"batch": 4, "pool": 2}, "batch"),
        ({"anchors": {"uncond": 0.5, "gaussian": 0}}, "uncond"),
        ({"concepts": ["skull", "skull"]}, "twice"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(data: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        params(**data)


def test_parameters_survive_json_with_the_name_that_a_manifest_uses() -> None:
    given = params(**{"from": {"skull": "skull.safetensors"}})
    assert given.as_json()["from"] == {"skull": "skull.safetensors"}
    assert MembraneParams.parse(given.as_json()) == given


def test_a_bundle_is_claimed_as_a_guard_in_the_pipeline_with_the_row_without_it() -> None:
    claims = {claim.id: claim for claim in membrane_claims((SKULL,), SCOPE, params())}
    assert {claim.binds for claim in claims.values()} == {"in-pipeline"}
    assert [check.membranes for check in claims["skull.without"].checks] == ["off"]
    assert all(check.membranes == "on" for name in claims if name != "skull.without" for check in claims[name].checks)
    assert any("without them is free" in limit for limit in claims["skull.plain"].limits)


def test_a_merge_is_claimed_in_the_weights_and_has_no_row_without() -> None:
    claims = {claim.id: claim for claim in membrane_claims((SKULL,), SCOPE, params(mode="merge"))}
    assert {claim.binds for claim in claims.values()} == {"in-weights"}
    assert "skull.without" not in claims


def test_claims_about_synonyms_and_kept_concepts_are_made_where_there_are_any() -> None:
    assert {"skull.paraphrase", "kept", "kept-distance"} <= {c.id for c in membrane_claims((SKULL,), SCOPE, params())}
    alone = Scope(concepts=(BOMB,))
    ids = {claim.id for claim in membrane_claims((BOMB,), alone, params())}
    assert ids == {"bomb.plain", "unconditional", "bomb.without"}


def test_a_reused_membrane_is_claimed_as_one_of_another_model() -> None:
    claims = membrane_claims((SKULL,), SCOPE, params(**{"from": {"skull": "skull.safetensors"}}))
    assert "another model" in claims[0].limits[0]


def test_the_notes_say_who_is_free_of_it_and_that_no_threshold_opens_everything() -> None:
    assert any("plain diffusers" in note for note in notes(params(), (SKULL,)))
    assert any("threshold" in note for note in notes(params(), (SKULL,)))
    assert not any("threshold" in note for note in notes(params(transport={"threshold": 0.9}), (SKULL,)))
    assert notes(params(mode="merge", transport={"threshold": 0.9}), (SKULL,)) == (
        "transport has no effect in mode merge: merged membranes do not see the prompt",
    )


def test_a_membrane_that_opens_by_what_is_drawn_says_so_under_its_limits() -> None:
    by_words, predicting = (
        membrane_claims((SKULL,), SCOPE, params(transport=one))[0] for one in ({}, {"prediction": {}})
    )
    assert any("words alone" in limit for limit in by_words.limits)
    assert not any("words alone" in limit for limit in predicting.limits)
    assert any("about to generate" in limit for limit in predicting.limits)
