from __future__ import annotations

import pytest
from mask_cases import CAT, GHOST, PIZZA, SCOPE, SKULL
from pydantic import ValidationError

from publisher.api import Claim, Scope, TrainingParams, UsageError
from publisher.api.choosing import captions_of, spread
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.plan import choose_tested
from publisher_freeze_mask.step import FreezeMaskStep

SELECTIVE, RANDOM, INNOCENTS = "selective", "random", "innocents"


def claims(scope: Scope = SCOPE, **data: object) -> dict[str, Claim]:
    return {claim.id: claim for claim in FreezeMaskStep().claims(FreezeMaskParams.parse(data), scope)}


def test_protective_means_a_larger_share_lost_clear_of_zero() -> None:
    claim = claims(innocents=["ghost"])[SELECTIVE]
    (check,) = claim.checks
    assert claim.sentence.endswith("a larger share of its gain on skull, pizza than on cat")
    assert (check.attack, check.metric) == ("full-finetune", "selectivity")
    assert check.metric_params == {"innocents": ["cat"], "against": "unmasked"}
    assert check.concepts == ("skull", "pizza", "cat")
    assert check.gate.lower_at_least is not None
    assert check.gate.lower_at_least > 0


def test_the_two_other_figures_have_the_bounds_of_the_parameters() -> None:
    found = claims(random_at_most=0.4, innocent_at_least=0.8, innocents=1)
    (random,), (kept,) = found[RANDOM].checks, found[INNOCENTS].checks
    assert (random.metric, random.metric_params, random.concepts) == (
        "gain-left",
        {"against": "random-mask"},
        ("skull", "pizza"),
    )
    assert random.gate.upper_at_most == 0.4
    assert (kept.metric, kept.metric_params, kept.concepts) == ("gain-kept", {"against": "unmasked"}, ("cat",))
    assert kept.gate.lower_at_least == 0.8


def test_the_attacker_honours_the_mask_and_its_controls_do_not() -> None:
    attacks = [claim.checks[0].attack_params for claim in claims(replicas=2).values()]
    assert attacks[0] == attacks[1] == attacks[2]
    params = TrainingParams.parse(attacks[0])
    assert params.mask
    assert params.kept_captions == "rare"
    assert params.controls == ("unmasked", "random-mask", "seed-1", "seed-2")


def test_the_attack_can_be_given_parameters_of_its_own() -> None:
    check = {"attack": "cross-attention", "evaluation_step": 20, "settings": {"lr": 1e-4}, "seeds": 5}
    found = claims(check=check)[SELECTIVE].checks[0]
    assert found.attack == "cross-attention"
    assert found.attack_params["lr"] == 1e-4
    assert found.attack_params["seeds"] == 5
    assert found.metric_params["evaluation_step"] == 20


def test_what_is_stated_has_no_gate_and_says_so() -> None:
    for claim in claims(promise="stated").values():
        (check,) = claim.checks
        assert check.gate is None
        assert "is stated" in claim.sentence
        assert any("no bound" in limit for limit in claim.limits)


def test_every_claim_says_that_nobody_is_stopped_and_what_an_audit_sees() -> None:
    for claim in claims().values():
        assert claim.binds == "by-convention"
        text = " ".join(claim.limits)
        assert "not stopped" in text
        assert "not frozen can be trained to make up" in text
        assert "bit-equal, and nothing else" in text
        assert "not measured" in text


def test_innocents_are_tested_that_the_mask_was_not_learned_from() -> None:
    assert choose_tested(FreezeMaskParams(innocents=("ghost",)), SCOPE) == (CAT,)
    assert choose_tested(FreezeMaskParams(innocents=2), SCOPE) == (GHOST, CAT)


def test_without_anything_kept_nothing_can_be_claimed() -> None:
    with pytest.raises(UsageError, match="nothing to keep"):
        claims(Scope(concepts=(SKULL,)))


@pytest.mark.parametrize(
    "data",
    [
        {"ratio": 0},
        {"ratio": 1.5},
        {"innocents": []},
        {"innocents": ["a", "a"]},
        {"rare": ["x", "x"]},
        {"recipe": "released"},
        {"recipe": "released", "count": "tensors", "granularity": "row"},
        {"adapt": {"captions": ["name", "name"]}},
    ],
    ids=str,
)
def test_parameters_that_make_no_sense_are_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FreezeMaskParams.parse(data)


def test_parameters_survive_json() -> None:
    params = FreezeMaskParams.parse({"innocents": ["ghost"], "check": {"settings": {"lr": 1e-4}}})
    assert FreezeMaskParams.parse(params.as_json()) == params


def test_captions_say_the_concept_in_other_words() -> None:
    prompts = ("a skull emoji", "a skull emoji in noto style")
    assert captions_of(SKULL, "name", prompts, "xjy") == prompts
    assert captions_of(SKULL, "rare", prompts, "xjy") == ("a xjy emoji", "a xjy emoji in noto style")
    assert captions_of(SKULL, "synonym", prompts, "xjy")[0] == "a death head emoji"
    assert captions_of(SKULL, "description", prompts, "xjy") == ("a white face with black eyes",) * 2
    assert captions_of(SKULL, "empty", prompts, "xjy") == ("", "")
    assert captions_of(PIZZA, "synonym", PIZZA.prompts, "xjy") == PIZZA.prompts


def test_what_is_spread_is_even_and_begins_with_the_first() -> None:
    assert spread(tuple(range(10)), 4) == (0, 2, 5, 7)
    assert spread((1, 2), 4) == (1, 2)


def test_the_rare_words_of_the_mask_are_not_those_of_attacks() -> None:
    assert TrainingParams().rare not in FreezeMaskParams().rare
