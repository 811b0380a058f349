"""``CONTRIBUTING.md`` names files that exist, and each recipe has as many as it says."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MOST = {
    "A new attack": 3,
    "A new family of models": 4,
    "Another method of an interval": 2,
    "A new column of the report": 2,
    "A step that trains": 5,
}


def test_every_file_that_is_named_exists() -> None:
    named = re.findall(r"`([\w./-]+/[\w./-]*)`", TEXT)
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_recipe_has_as_many_files_as_it_says_and_no_more_than_it_may() -> None:
    recipes = dict(re.findall(r"^### ([\w ]+): (\d) files\n(?=.*)", TEXT, flags=re.MULTILINE))
    assert {name: int(count) for name, count in recipes.items()} == MOST
    parts = re.split(r"^### ", TEXT, flags=re.MULTILINE)[1:]
    assert [len(re.findall(r"^\d\. `", part, flags=re.MULTILINE)) for part in parts] == list(MOST.values())
