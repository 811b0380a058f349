from __future__ import annotations

import re
from pathlib import Path

from publisher.codes import Code, Finding, table

PAGE = Path(__file__).parents[2] / "docs/reference/verification-codes.md"


def test_the_reference_page_lists_exactly_the_codes() -> None:
    """To renew the page: python -c 'from publisher.codes import table; print(table())'."""
    assert table() in PAGE.read_text()
    assert len(re.findall(r"^\| `V", PAGE.read_text(), re.MULTILINE)) == len(Code)


def test_codes_are_unique_and_have_their_form() -> None:
    values = [code.value for code in Code]
    assert len(set(values)) == len(values)
    assert all(re.fullmatch(r"V0\d\d", value) for value in values)


def test_a_finding_prints_harmlessly() -> None:
    assert str(Finding(Code.EXTRA, "a\nb", "\x1b[2J")) == "V012 a\\nb: \\x1b[2J"
