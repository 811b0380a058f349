from __future__ import annotations

import json
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
