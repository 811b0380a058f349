"""The page about the report's first table names every access, in its order, with the attacks that have it."""

from __future__ import annotations

import re
from pathlib import Path

from publisher.api import Access
from publisher.builtin.attacks import ATTACKS
from publisher.report.access import NEEDS, TITLES

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "what-it-takes.md"


def test_the_page_sorts_the_attacks_as_they_say_themselves() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: set(re.findall(r"`([\w-]+)`", attacks)) for name, _, attacks in rows} == {
        access.value: {attack.name for attack in ATTACKS if attack.access is access} for access in Access
    }
    assert [name for name, _, _ in rows] == [access.value for access in Access] == [one.value for one in TITLES]
    assert all(words.startswith(NEEDS[Access(name)]) for name, words, _ in rows)
