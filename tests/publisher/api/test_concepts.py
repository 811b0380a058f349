"""A concept's name in a prompt: whole words in any letter case, and a plain match where no spaces part words."""

from __future__ import annotations

import pytest

from publisher.api import Concept, split_at_name
from publisher.api.choosing import captions_of
from publisher.api.training import TrainingParams, rare_prompts, texts_for


@pytest.mark.parametrize(
    ("prompt", "name", "wanted"),
    [
        ("a party in Art style, art", "art", "a party in * style, *"),
        ("street-art: ART.", "art", "street-*: *."),
        ("arts and artful art_1", "art", "arts and artful art_1"),
        ("by VAN  GOGH, a van\ngogh", "Van Gogh", "by *, a *"),
        ("Gogh's van", "Van Gogh", "Gogh's van"),
        ("un Éléphant, des éléphants", "éléphant", "un *, des éléphants"),
        ("一只猫的照片", "猫", "一只*的照片"),
        ("一只Cat的照片", "cat", "一只*的照片"),
        ("a猫b", "猫", "a*b"),
        ("ネコのネコ科", "ネコ", "*の*科"),
        ("고양이가 있다", "고양이", "*가 있다"),
        ("ภาพแมวดำ", "แมว", "ภาพ*ดำ"),
        ("c++ and c", "c++", "* and c"),
        ("c++11", "c++", "*11"),
        (r"\1 and a <it>", r"\1", "* and a <it>"),
        ("a cat", " ", "a cat"),
        ("", "cat", ""),
    ],
)
def test_a_name_is_found_as_whole_words_in_any_case(prompt: str, name: str, wanted: str) -> None:
    assert "*".join(split_at_name(prompt, name)) == wanted


ART = Concept(
    id="art", name="art", label="art", synonyms=("craft",), prompts=("a party in Art style, art", "a party", "an ART")
)


def test_a_rare_token_leaves_the_name_nowhere_and_other_words_as_they_are() -> None:
    assert rare_prompts("sks", ART) == ("a party in sks style, sks", "an sks")
    assert captions_of(ART, "rare", ART.prompts, "sks") == ("a party in sks style, sks", "a party", "an sks")
    assert captions_of(ART, "synonym", ART.prompts, "sks")[0] == "a party in craft style, craft"
    cat = Concept(id="cat", name="猫", label="cat", prompts=("一只猫的照片",))
    assert rare_prompts("sks", cat) == ("一只sks的照片",)


def test_no_rare_caption_stands_for_a_name_that_no_prompt_has() -> None:
    nameless = ART.model_copy(update={"prompts": ("a party",)})
    assert texts_for(TrainingParams(captions="rare"), nameless) == ()
