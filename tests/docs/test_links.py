"""Links between the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]


def test_every_relative_link_has_a_target() -> None:
    missing = {}
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        links = re.findall(r"\]\(([^)#\s]+)", text)
        if broken := [link for link in links if "://" not in link and not (page.parent / link).exists()]:
            missing[str(page.relative_to(ROOT))] = broken
    assert missing == {}


def test_the_list_of_all_pages_has_all_pages() -> None:
    listed = re.findall(r"\]\(([^)#\s]+)", (ROOT / "docs" / "README.md").read_text(encoding="utf-8"))
    pages = {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")} - {"README.md"}
    assert sorted(pages) == sorted(listed)
