"""Several scorers in one manifest: who judges which kind, with which parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from publisher.manifest.resolve import Resolved
from publisher.manifest.scorers import ResolvedScorer, labels_of_all
from support.fake_catalog import SMALL, FakeCatalog

TWO = SMALL.replace(
    "{scorer: emoji}",
    "{scorers: [{use: emoji, for: [style]}, {use: objects, id: things, with: {any: [person]}}]}",
).replace("keep: {rest_of: emoji}", "keep: {rest_of: emoji, concepts: [{id: ada, kind: person, prompts: [ada]}]}")


def test_each_kind_is_judged_by_one_entry_with_its_parameters(resolved: Callable[[str], Resolved]) -> None:
    result = resolved(TWO.replace('"{a} {object} in {name} style"', '"a thing in {name} style"'))
    assert [scorer.as_json() for scorer in result.evaluate.scorers] == [
        {
            "id": "emoji",
            "use": "emoji",
            "kinds": ["style"],
            "params": {},
            "given": [],
            "calibration": [],
            "decides": True,
        },
        {
            "id": "things",
            "use": "objects",
            "kinds": ["object", "person"],
            "params": {"any": ["person"]},
            "given": ["any"],
            "calibration": [],
            "decides": True,
        },
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


def test_entries_of_one_kind_judge_together_what_each_of_them_has_a_label_for(
    resolved: Callable[[str], Resolved],
) -> None:
    text = SMALL.replace("scorer: emoji", "scorers: [{use: emoji}, {use: objects, with: {any: [object]}}]")
    assert [one.kinds for one in resolved(text).evaluate.scorers] == [("object", "style"), ("object",)]
    labels = labels_of_all(
        {
            name: ResolvedScorer(id=name, use="objects", kinds=("object",), params={"any": any_})
            for name, any_ in (("one", []), ("other", ["object"]))
        },
        Together(),
    )
    assert labels == {"object": ["cat", "dog"]}


class Together(FakeCatalog):
    """Has a scorer of two labels, or of any."""

    def labels(self, scorer: str, params: Mapping[str, Any]) -> Mapping[str, Sequence[str] | None]:
        return {"object": None if params["any"] else ["cat", "dog"]}


@pytest.mark.parametrize("sheets", ["one.json", ["one.json", "two.json"]])
def test_an_entry_names_one_calibration_sheet_or_several(resolved: Callable[[str], Resolved], sheets: Any) -> None:
    written = sheets if isinstance(sheets, str) else f"[{', '.join(sheets)}]"
    text = SMALL.replace("scorer: emoji", f"scorers: [{{use: emoji, calibration: {written}}}]")
    (found,) = resolved(text).evaluate.scorers
    assert found.calibration == (("one.json",) if isinstance(sheets, str) else tuple(sheets))


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
