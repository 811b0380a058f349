"""Several scorers in one manifest: who judges which kind, with which parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from publisher.manifest.resolve import Resolved
from support.fake_catalog import SMALL

TWO = SMALL.replace(
    "{scorer: emoji}",
    "{scorers: [{use: emoji, for: [style]}, {use: objects, id: things, with: {any: [person]}}]}",
).replace("keep: {rest_of: emoji}", "keep: {rest_of: emoji, concepts: [{id: ada, kind: person, prompts: [ada]}]}")


def test_each_kind_is_judged_by_one_entry_with_its_parameters(resolved: Callable[[str], Resolved]) -> None:
    result = resolved(TWO.replace('"{a} {object} in {name} style"', '"a thing in {name} style"'))
    assert [scorer.as_json() for scorer in result.evaluate.scorers] == [
        {"id": "emoji", "use": "emoji", "kinds": ["style"], "params": {}},
        {"id": "things", "use": "objects", "kinds": ["object", "person"], "params": {"any": ["person"]}},
    ]
    assert [(one.id, one.label) for one in result.scope.keep] == [
        ("ada", "ada"),
        ("noto", "noto"),
        ("blob", "blob"),
        ("apple", "apple"),
    ]


@pytest.mark.parametrize(
    ("scorers", "expected"),
    [
        (
            "scorers: [{use: emoji}, {use: objects}]",
            ["10:36: the kind 'object' is judged by 'emoji' and by 'objects'."],
        ),
        (
            "scorers: [{use: objects, for: [object, unsafe]}]",
            ["10:51: the scorer 'objects' does not judge the kind 'unsafe'."],
        ),
        ("scorers: [{use: emoji, for: [style]}]", ["7:12: no scorer judges the kind 'object'."]),
        (
            "scorers: [{use: emoji, for: [style]}, {use: emoji, for: [object]}]",
            ["10:50: the scorer 'emoji' is here twice."],
        ),
        ("scorer: emoji, scorers: [{use: objects}]", ["10:12: 'evaluate' has both 'scorer' and 'scorers'."]),
        (
            "scorers: [{use: objects, with: {any: object}}]",
            ["10:49: 'any' must be a list, not the text 'object'."],
        ),
        ("scorers: [{use: emojy}]", ["10:28: 'evaluate' uses the scorer 'emojy', which no plugin provides."]),
        ("scorers: [{use: emoji, for: []}]", ["10:40: 'for': must not be empty."]),
    ],
)
def test_what_does_not_fit_together_is_refused_where_it_stands(
    scorers: str, expected: list[str], problems: Callable[[str], list[str]]
) -> None:
    found = problems(SMALL.replace("scorer: emoji", scorers).replace("{rest_of: emoji}", "{prompts: [a thing]}"))
    assert found == expected


def test_a_scorer_that_takes_any_label_has_no_rest(problems: Callable[[str], list[str]]) -> None:
    text = SMALL.replace("scorer: emoji", "scorers: [{use: objects, id: any, with: {any: [object]}}]")
    found = problems(text.replace("rest_of: emoji", "rest_of: any"))
    assert found == ["8:17: the scorer takes any object label, so there is no list of the rest."]


def test_a_check_names_an_entry_by_its_id(
    resolved: Callable[[str], Resolved], problems: Callable[[str], list[str]]
) -> None:
    check = "checks: [{id: x, attack: plain, metric: rate, concepts: [cigarette], scorer: things}]"
    text = SMALL.replace("scorer: emoji", f"scorers: [{{use: emoji, id: things}}], {check}")
    assert resolved(text).evaluate.checks[0].scorer == "things"
    (line,) = problems(text.replace("scorer: things", "scorer: thing"))
    assert "check 1 uses the scorer 'thing', which no plugin provides." in line
