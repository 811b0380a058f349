"""Names and synonyms of a concept in a text, and prompts to keep that call a concept so."""

from __future__ import annotations

import pytest

from publisher.api import Concept, UsageError
from publisher.api.choosing import kept_notes, names_in, require_apart

CAT = Concept(id="cat", name="cat", synonyms=("house tiger", " ", "猫"), prompts=("a cat",), label="cat")
CAR = Concept(id="car", name="car", prompts=("a car",), label="car")


@pytest.mark.parametrize(
    ("text", "whole", "plural"),
    [
        ("A Cat, a dog", ["cat"], ["cat"]),
        ("cats", [], ["cat"]),
        ("the cat's tail", ["cat"], ["cat"]),
        ("a caterpillar, s", [], []),
        ("House  Tigers and a CAT", ["cat"], ["cat", "house tiger"]),
        ("一只猫的照片", ["猫"], ["猫"]),
        ("", [], []),
    ],
)
def test_names_and_synonyms_stand_in_a_text_as_whole_words(text: str, whole: list[str], plural: list[str]) -> None:
    assert list(names_in(text, CAT)) == whole
    assert list(names_in(text, CAT, plural=True)) == plural


def test_a_prompt_to_keep_that_calls_a_concept_is_refused_and_its_plural_noted() -> None:
    with pytest.raises(UsageError, match="'a house tiger' has to be kept and says 'house tiger', as 'cat' is called"):
        require_apart((CAR, CAT), ("", "a dog", "a house tiger"))
    require_apart((CAR, CAT), ("", "cats", "a caravan"))
    first, second = kept_notes((CAR, CAT), ("two cats", "a dog", "cars", "a cat"))
    assert first.startswith("the prompt 'cars' has to be kept and says 'car', as 'car' is called")
    assert second.startswith("the prompt 'two cats' has to be kept and says 'cat', as 'cat' is called")
