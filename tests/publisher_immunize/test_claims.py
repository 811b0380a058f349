from __future__ import annotations

import pytest
from immunize_cases import SCOPE, SKULL
from pydantic import ValidationError

from publisher.api import Claim, Scope
from publisher.api.choosing import captions_of, spread
from publisher.api.training import TrainingParams
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.step import Immunize


def claims(scope: Scope = SCOPE, **data: object) -> dict[str, Claim]:
    return {claim.id: claim for claim in Immunize().claims(ImmunizeParams.parse(data), scope)}


def test_each_concept_is_attacked_by_each_attack_and_compared_with_the_model_before() -> None:
    found = claims(attacks=["lora", "dreambooth"], delay=3.0)["skull.relearning"]
    assert found.sentence == "re-learning skull takes at least 3 times the steps"
    assert [check.attack for check in found.checks] == ["lora", "dreambooth"]
    for check in found.checks:
        assert check.metric == "t50-ratio"
        assert check.metric_params == {"against": "before"}
        assert check.gate.lower_at_least == 3
        assert check.concepts == ("skull",)


def test_kept_concepts_are_attacked_under_a_new_word_and_compared_with_the_model_before() -> None:
    found = claims(innocents=2)
    (check,) = found["cat.learned"].checks
    assert check.attack_params["captions"] == "rare"
    assert check.metric_params == {"against": "before"}
    assert (check.gate.value_at_least, check.gate.value_at_most) == (0.8, 1.25)
    assert (check.gate.lower_at_least, check.gate.upper_at_most) == (0.5, 2.0)
    assert found["cat.learned"].sentence.endswith("takes 0.8 to 1.25 times the steps of before (interval: 0.5 to 2)")
    assert "ghost.learned" in found


def test_the_row_of_copied_weights_is_reported_without_a_gate_and_says_so() -> None:
    found = claims()["pizza.copied"]
    (check,) = found.checks
    assert check.attack == "copy-attention"
    assert check.gate is None
    assert any("one line" in limit for limit in found.limits)
    assert "no protection" in found.sentence
    assert any("a low figure is no resistance" in limit for limit in found.limits)


def test_where_all_weights_moved_nothing_is_read_from_attention_that_is_put_back() -> None:
    found = claims(outer="denoiser")
    assert not any("copied" in name for name in found)
    assert not any(check.attack == "copy-attention" for claim in found.values() for check in claim.checks)
    assert any("copies all of its weights back" in limit for limit in found["pizza.relearning"].limits)


def test_the_attacks_budget_is_that_of_the_parameters() -> None:
    check = {
        "images": 5,
        "evaluation_steps": [0, 4],
        "seeds": 2,
        "batch": 1,
        "images_per_evaluation": 6,
        "captions": "description",
        "controls": ["before"],
    }
    found = claims(check=check)["skull.relearning"].checks[0].attack_params
    assert found == check
    assert TrainingParams.parse(found).evaluation_steps == (0, 4)


def test_an_attack_can_be_given_parameters_of_its_own() -> None:
    found = claims(attacks=["lora", "dreambooth"], check={"settings": {"lora": {"lr": 1e-3}}})["skull.relearning"]
    assert [check.attack_params.get("lr") for check in found.checks] == [1e-3, None]
    assert claims(check={"settings": {"lora": {"lr": 1e-3}}})["ghost.learned"].checks[0].attack_params["lr"] == 1e-3


def test_the_budgets_defaults_are_those_of_every_attack_by_training() -> None:
    mine, theirs = ImmunizeParams().check.budget("lora"), TrainingParams().as_json()
    assert mine == {name: theirs[name] for name in mine}


def test_without_kept_concepts_nothing_is_claimed_of_them() -> None:
    assert set(claims(Scope(concepts=(SKULL,)))) == {"skull.relearning", "skull.copied"}


def test_every_claim_binds_by_weights_and_says_what_it_does_not_say() -> None:
    for claim in claims().values():
        assert claim.binds == "in-weights"
        assert claim.limits


@pytest.mark.parametrize(
    "data",
    [
        {"inner": []},
        {"inner": ["lora", "lora"]},
        {"inner_order": 2, "first_order": True},
        {"inner_order": 2, "restart": 5},
        {"inner_order": 2, "gradient_checkpointing": True},
        {"strength": 0, "prior": 0},
        {"captions": ["name", "name"]},
        {"lr": 0},
        {"lr": float("nan")},
        {"lam": float("inf")},
    ],
    ids=str,
)
def test_parameters_that_contradict_each_other_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImmunizeParams.parse(data)


def test_parameters_survive_json() -> None:
    params = ImmunizeParams.parse({"inner": ["lora", "full"], "check": {"seeds": 1}})
    assert ImmunizeParams.parse(params.as_json()) == params


def test_captions_say_the_concept_in_other_words() -> None:
    prompts = ("a skull emoji", "a skull emoji in noto style")
    assert captions_of(SKULL, "name", prompts, "xjy") == prompts
    assert captions_of(SKULL, "rare", prompts, "xjy") == ("a xjy emoji", "a xjy emoji in noto style")
    assert captions_of(SKULL, "synonym", prompts, "xjy")[0] == "a death head emoji"
    assert captions_of(SKULL, "description", prompts, "xjy") == ("a white face with black eyes",) * 2
    assert captions_of(SKULL, "empty", prompts, "xjy") == ("", "")


def test_the_rare_words_of_the_training_are_not_those_of_attacks() -> None:
    assert TrainingParams().rare not in ImmunizeParams().rare


def test_what_is_spread_is_even_and_begins_with_the_first() -> None:
    assert spread(tuple(range(10)), 4) == (0, 2, 5, 7)
    assert spread((1, 2), 4) == (1, 2)
