from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.releasing import publisher

TINY = Path(__file__).parents[2] / "released" / "tiny"


def test_names_may_stand_before_the_reports() -> None:
    result = publisher("compare", f"one={TINY}", f"two={TINY / 'release' / 'reports'}")
    assert result.exit_code == 0
    assert "one" in result.stdout
    assert "not told apart" in result.stdout


@pytest.mark.parametrize(("form", "start"), [("html", "<!doctype html>"), ("markdown", "# 2 models"), ("json", "{")])
def test_every_form_goes_to_a_file_or_to_stdout(tmp_path: Path, form: str, start: str) -> None:
    words = ("compare", f"one={TINY}", f"two={TINY}", "--format", form)
    assert publisher(*words).stdout.startswith(start)
    assert publisher(*words, "--output", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out").read_text().startswith(start)


def test_json_has_the_difference() -> None:
    found = json.loads(publisher("compare", f"one={TINY}", f"two={TINY}", "--format", "json").stdout)
    assert [cell["difference"]["outcome"] for row in found["rows"] for cell in row["cells"][1:]] == ["not told apart"]


@pytest.mark.parametrize("words", [("compare",), ("compare", TINY), ("compare", TINY, TINY), ("compare", TINY, "gone")])
def test_what_cannot_be_compared_is_a_usage_error(words: tuple[object, ...]) -> None:
    assert publisher(*words).exit_code == 2


def test_a_new_release_is_answered_with_an_exit_code(tmp_path: Path) -> None:
    reports = Path(shutil.copytree(TINY / "release" / "reports", tmp_path / "reports"))
    record = json.loads((reports / "report.json").read_text())
    record["claims"][0]["checks"][0] |= {"metric": "concept-rate"}
    (reports / "report.json").write_text(json.dumps(record))
    words = ("compare", f"old={reports}", f"new={reports}", "--not-worse-by")
    for points, code in ((7, 0), (6, 4)):
        said = publisher(*words, points)
        assert said.exit_code == code
    assert said.stdout.startswith("Not decided: whether new loses more than 6 points against old\n")
    found = json.loads(publisher(*words, 7, "--format", "json").stdout)
    assert (found["answer"], found["margin"]) == ("not worse", 0.07)


@pytest.mark.parametrize(
    "words", [(TINY, TINY, TINY, 2), (TINY, TINY, 0), (TINY, TINY, "nan"), (TINY, TINY, 2, "--format", "html")]
)
def test_a_margin_that_is_none_is_a_usage_error(words: tuple[object, ...]) -> None:
    at = next(place for place, word in enumerate(words) if not isinstance(word, Path))
    assert publisher("compare", *words[:at], "--not-worse-by", *words[at:]).exit_code == 2
