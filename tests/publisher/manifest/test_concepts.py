"""Names, labels and prompts of concepts, from their short forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from publisher.manifest import Resolved
from support.fake_catalog import SMALL, FakeCatalog

Problems = Callable[[str | bytes], list[str]]


def test_names_and_labels_follow_the_scorers_words(resolved: Callable[[str], Resolved]) -> None:
    entries = "[t-shirt, police-officer, {id: gun, name: handgun, label: pistol}, {id: smoke, name: cigarette}]"
    scope = resolved(SMALL.replace("[cigarette]", entries)).scope
    assert [(each.name, each.label) for each in scope.concepts] == [
        ("t-shirt", "t-shirt"),
        ("police officer", "police officer"),
        ("handgun", "pistol"),
        ("cigarette", "cigarette"),
    ]
    assert [each.id for each in scope.keep if each.kind == "object"] == ["apple"]


def test_without_a_scorer_an_id_is_read_as_words_and_labels_are_not_checked(
    resolved: Callable[[str], Resolved],
) -> None:
    text = SMALL.replace("[cigarette]", "[water_pipe-set]").replace("evaluate: {scorer: emoji}", "")
    result = resolved(text)
    assert (result.evaluate.scorers, result.scope.concept("water_pipe-set").name) == ((), "water pipe set")


def test_synonyms_make_paraphrases_from_the_same_templates(resolved: Callable[[str], Resolved]) -> None:
    entry = '{id: cigarette, synonyms: [smoke, ash], prompts: ["{a} {name}", "a thing in {style} style"]}'
    result = resolved(SMALL.replace("[cigarette]", f"[{entry}]")).scope.concept("cigarette")
    assert result.prompts == ("a cigarette", "a thing in noto style", "a thing in blob style", "a thing in apple style")
    assert result.paraphrases == ("a smoke", "an ash")


def test_paraphrases_that_are_given_win(resolved: Callable[[str], Resolved]) -> None:
    entry = "{id: cigarette, synonyms: [smoke], paraphrases: [something to smoke]}"
    assert resolved(SMALL.replace("[cigarette]", f"[{entry}]")).scope.concept("cigarette").paraphrases == (
        "something to smoke",
    )


def test_a_kept_concept_does_not_stand_beside_itself(resolved: Callable[[str], Resolved]) -> None:
    result = resolved(SMALL.replace('"{a} {name} emoji"', '"{name} and {object}"'))
    assert result.scope.concept("apple").prompts == (
        "apple and pistol",
        "apple and police officer",
        "apple and t-shirt",
    )


def test_a_kept_concept_that_is_the_only_one_of_its_kind_has_no_other_to_stand_beside(
    problems: Problems, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "scorers", {"emoji": {"object": ("cigarette", "apple"), "style": ("noto",)}})
    assert problems(SMALL.replace('"{a} {name} emoji"', '"{name} and {object}"')) == [
        "5:12: {object} stands for kept concepts of the kind 'object', and there is none but 'apple'."
    ]


def test_labels_that_give_one_id_are_told_apart_or_refused(
    problems: Problems, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"object": ("cigarette", "a b", "a-b", "a_b", "日本"), "style": ("noto",)}
    monkeypatch.setattr(catalog, "scorers", {"emoji": labels})
    assert problems(SMALL) == ["8:17: the scorer's object label '日本' gives no id that is free."]


def test_a_template_that_explodes_is_refused(
    problems: Problems, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ("cigarette", *(f"thing {number}" for number in range(1002)))
    monkeypatch.setattr(catalog, "scorers", {"emoji": {"object": objects, "style": ("noto",)}})
    assert problems(SMALL) == ["8:17: the concept 'noto' gets more than 1000 prompts."]
