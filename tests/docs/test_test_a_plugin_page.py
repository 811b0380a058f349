"""The page on testing plugins is true: its release runs as printed, and so does its scorer that sees nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.scaffold import plugin_files
from publisher.testing import installed, release

PAGE = Path(__file__).parents[2] / "docs" / "plugins" / "test-a-plugin.md"


@pytest.fixture
def _dampen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for path, text in plugin_files("step", "dampen").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with installed({"dampen": "publisher_dampen"}, tmp_path):
        yield
    sys.modules.pop("publisher_dampen", None)


@pytest.mark.usefixtures("_dampen")
def test_the_release_of_the_page_runs_and_another_threshold_sees_nothing() -> None:
    page = PAGE.read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "release(" in block)
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    manifest = code.partition('"""')[2].partition('"""')[0]
    (blind,) = re.findall(r"`(scorers: .*?)`", page)
    outcome = release(manifest.replace("evaluate: {", f"evaluate: {{{blind}, "))
    (plain,) = (check for claim in outcome.report.claims for check in claim.checks)
    assert (outcome.decision, plain.verdict) == ("unknown", "unknown")
