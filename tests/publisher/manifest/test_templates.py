from __future__ import annotations

import pytest

from publisher.manifest.templates import expand, placeholders


@pytest.mark.parametrize(
    ("template", "name", "prompt"),
    [
        ("{a} {name} emoji", "pizza", "a pizza emoji"),
        ("{a} {name} emoji", "apple", "an apple emoji"),
        ("{a} {name} emoji", "Elephant", "an Elephant emoji"),
        ("{a} old {name}", "house", "an old house"),
        ("{name} is {a} thing", "it", "it is a thing"),
        ("{name}", "{a} {style}", "{a} {style}"),
        ("{{{name}}}", "x", "{x}"),
    ],
)
def test_the_article_fits_the_word_that_follows(template: str, name: str, prompt: str) -> None:
    assert expand(template, name, {}) == [prompt]


def test_a_kind_gives_one_prompt_for_each_of_its_names() -> None:
    others = {"style": ["noto", "blob"], "object": ["ant", "bee"]}
    assert expand("{a} {name} in {style} style", "cat", others) == ["a cat in noto style", "a cat in blob style"]
    assert expand("{a} {object} {style}", "-", others) == ["an ant noto", "an ant blob", "a bee noto", "a bee blob"]


def test_one_kind_twice_is_the_same_name_twice() -> None:
    assert expand("{style} and {style}", "-", {"style": ["x", "y"]}) == ["x and x", "y and y"]


def test_placeholders_are_listed_in_order() -> None:
    assert placeholders("{a} {name} {{not}} in {style}") == ["a", "name", "style"]
