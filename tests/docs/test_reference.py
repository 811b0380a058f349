"""The reference pages are what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from publisher.api import hookspecs

ROOT = Path(__file__).parents[2]


def test_no_page_is_out_of_date() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    assert made["stale"]() == [], "run docs/make_reference.py"


@pytest.mark.parametrize("name", [name for name in vars(hookspecs) if name.startswith("publisher_")])
def test_every_hook_is_documented_with_its_signature(name: str) -> None:
    page = (ROOT / "docs" / "reference" / "hooks.md").read_text()
    assert f"\n## {name}(" in page


def test_the_page_of_an_exit_code_has_all_of_them() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    assert [int(line.split("|")[1]) for line in page.splitlines() if line.startswith("| ") and line[2].isdigit()] == [
        0,
        1,
        2,
        3,
        4,
        130,
        143,
    ]
