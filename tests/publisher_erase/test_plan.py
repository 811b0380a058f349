from __future__ import annotations

import pytest
from erase_fakes import concept

from publisher.api import Scope, UsageError
from publisher_erase.params import EraseParams
from publisher_erase.plan import Tokens, select, substitute, tokenise

PISTOL, SMOKE = concept("pistol", synonyms=("gun",)), concept("cigarette")


def tokens(text: str) -> Tokens:
    """Tokenise known words, in lower case."""
    words = tuple(hash(word) for word in text.lower().split())
    return Tokens(text, (words,), len(words) + 2)


@pytest.mark.parametrize(
    ("prompt", "words", "target", "wanted"),
    [
        ("a pistol emoji", ["pistol"], "ghost", "a ghost emoji"),
        ("a Pistol emoji, PISTOL", ["pistol"], "ghost", "a ghost emoji, ghost"),
        ("a pistolero emoji", ["pistol"], "ghost", "ghost"),
        ("red wine and wine", ["wine", "red wine"], "milk", "milk and wine"),
        ("a pistol emoji", ["pistol"], " ", ""),
        ("c++ (old)", ["c++"], r"\1", r"\1 (old)"),
        ("in noto style", ["noto"], "blob", "in blob style"),
    ],
)
def test_the_target_takes_the_place_of_the_name(prompt: str, words: list[str], target: str, wanted: str) -> None:
    assert substitute(prompt, words, target) == wanted


def test_all_concepts_are_chosen_and_the_empty_prompt_is_always_kept() -> None:
    found = select(EraseParams(), Scope(concepts=(SMOKE, PISTOL), keep=(concept("pizza"),), keep_prompts=("a dog",)))
    assert [one.id for one, _ in found.concepts] == ["cigarette", "pistol"]
    assert found.keep == ("", "a pizza emoji", "a dog")
    assert found.warnings == ()


def test_concepts_and_targets_can_be_named() -> None:
    params = EraseParams(concepts=("pistol",), targets={"pistol": "ghost"}, synonyms=True)
    ((one, pairs),) = select(params, Scope(concepts=(SMOKE, PISTOL))).concepts
    assert one is PISTOL
    assert pairs == (("a pistol emoji", "a ghost emoji"), ("a gun emoji", "a ghost emoji"))


def test_a_concept_without_target_is_mapped_to_the_empty_prompt() -> None:
    ((_, pairs),) = select(EraseParams(), Scope(concepts=(PISTOL,))).concepts
    assert pairs == (("a pistol emoji", ""),)


@pytest.mark.parametrize("params", [{"concepts": ("pistl",)}, {"targets": {"pistl": "x"}}])
def test_an_unknown_concept_names_the_nearest(params: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="Did you mean 'pistol'"):
        select(EraseParams(**params), Scope(concepts=(PISTOL, SMOKE)))


def test_a_target_for_a_concept_that_is_not_erased_is_refused() -> None:
    params = EraseParams(concepts=("pistol",), targets={"cigarette": "pencil"})
    with pytest.raises(UsageError, match="which is not a concept that this step erases"):
        select(params, Scope(concepts=(PISTOL, SMOKE)))


def test_no_concept_is_refused() -> None:
    with pytest.raises(UsageError, match="no concept to erase"):
        select(EraseParams(), Scope(concepts=()))


def test_more_than_ten_concepts_are_warned_about() -> None:
    many = tuple(concept(f"thing {i}") for i in range(11))
    found = select(EraseParams(), Scope(concepts=many, keep=(PISTOL,)))
    assert "11 concepts in one edit" in found.warnings[0]
    assert select(EraseParams(), Scope(concepts=many[:10], keep=(PISTOL,))).warnings == ()


def test_several_concepts_without_anything_to_keep_are_warned_about() -> None:
    assert "nothing to keep" in select(EraseParams(), Scope(concepts=(PISTOL, SMOKE))).warnings[0]
    assert select(EraseParams(), Scope(concepts=(PISTOL,))).warnings == ()


def tokenised(params: EraseParams, scope: Scope) -> list[int]:
    return [len(pairs) for pairs in tokenise(select(params, scope), tokens).concepts]


def test_prompts_that_are_one_to_the_model_count_once() -> None:
    twice = concept("pistol", "a pistol emoji", "A  PISTOL emoji", "pistol")
    kept = concept("dog", "a dog", "A DOG")
    found = tokenise(select(EraseParams(), Scope(concepts=(twice,), keep=(kept,))), tokens)
    assert [len(pairs) for pairs in found.concepts] == [2]
    assert [prompt.text for prompt in found.keep] == ["", "a dog"]


def test_an_empty_prompt_cannot_be_erased() -> None:
    with pytest.raises(UsageError, match="'pistol' has an empty prompt"):
        tokenised(EraseParams(), Scope(concepts=(concept("pistol", " "),)))


def test_a_concept_that_is_its_own_target_is_refused() -> None:
    with pytest.raises(UsageError, match="is its own target"):
        tokenised(EraseParams(targets={"pistol": "PISTOL"}), Scope(concepts=(PISTOL,)))


def test_a_concept_that_has_to_be_kept_is_refused() -> None:
    with pytest.raises(UsageError, match="has to be erased and has to be kept"):
        tokenised(EraseParams(), Scope(concepts=(PISTOL,), keep_prompts=("A pistol emoji",)))


def test_a_target_that_is_itself_erased_is_refused() -> None:
    with pytest.raises(UsageError, match="is the target of a concept"):
        tokenised(EraseParams(targets={"pistol": "cigarette"}), Scope(concepts=(SMOKE, PISTOL)))


def test_a_prompt_of_two_concepts_has_one_target() -> None:
    scope = Scope(concepts=(concept("pistol", "a weapon"), concept("gun", "a weapon", "a gun emoji")))
    assert tokenised(EraseParams(targets={"pistol": "ghost", "gun": "ghost"}), scope) == [1, 1]
    with pytest.raises(UsageError, match=r"the prompt 'a weapon' of concept 'gun' was there before with another"):
        tokenised(EraseParams(targets={"pistol": "ghost", "gun": "robot"}), scope)


def test_a_concept_that_is_another_ones_double_is_refused() -> None:
    double = concept("gun", "a pistol emoji")
    with pytest.raises(UsageError, match="all prompts of concept 'gun'"):
        tokenised(EraseParams(), Scope(concepts=(PISTOL, double)))
