"""Hints name this program the way the user started it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.cli.main import COMMANDS
from publisher.program import command, program

ROOT = Path(__file__).parents[2]
OURS = re.compile(rf"\bpublisher ({'|'.join(COMMANDS)})\b")
DOCUMENTS = (
    "manifest/starter.py",
    "package/card.py",
    "safeguards/freeze_mask/card.py",
    "builtin/reports/markdown_summary.py",
    "manifest/reference.py",
)
"""Text for readers on other machines, where the program has its own name."""
PROSE = ("safeguards/freeze_mask/guard/arming.py",)
"""Says what there is, and gives nothing to paste."""


@pytest.mark.parametrize(
    ("argv", "original", "expected"),
    [
        (["/x/publisher/__main__.py", "plan"], ["python3", "-m", "publisher", "plan"], "python3 -m publisher"),
        (
            ["/x/publisher/__main__.py"],
            ["my venv/python", "-X", "dev", "-m", "publisher"],
            "'my venv/python' -X dev -m publisher",
        ),
        ([".venv/bin/publisher", "plan"], ["python", ".venv/bin/publisher", "plan"], ".venv/bin/publisher"),
        (["train.py"], ["python", "train.py"], "publisher"),
        (["/y/__main__.py"], ["python", "-m", "pytest"], "publisher"),
    ],
)
def test_it_is_named_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch, argv: list[str], original: list[str], expected: str
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", original)
    monkeypatch.setenv("PATH", "")
    assert (program(), command("plugins")) == (expected, f"{expected} plugins")


def test_what_the_shell_would_find_has_its_short_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "publisher"
    script.touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == "publisher"


def test_a_hint_works_when_it_is_pasted(tmp_path: Path) -> None:
    """``python -m publisher``, with a program of the same name in front of it on the PATH."""
    manifest = (ROOT / "manifests" / "quickstart.yaml").read_text().replace("use: erase", "use: erasing", 1)
    (tmp_path / "m.yaml").write_text(manifest)
    start = [sys.executable, "-m", "publisher"]
    said = subprocess.run([*start, "plan", "m.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False).stderr
    hint = said.partition("See what is installed with: ")[2].splitlines()[0]
    assert hint == f"{sys.executable} -m publisher plugins"
    shown = subprocess.run([*start, "plan", "--help"], capture_output=True, text=True, check=True).stdout
    assert f"\n    {sys.executable} -m publisher plan manifest.yaml --json\n" in shown


def written(tree: ast.Module) -> Iterator[str]:
    """Return every text of a module that is no docstring."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def test_no_message_writes_the_name_itself() -> None:
    found = []
    for path in sorted((ROOT / "publisher").rglob("*.py")):
        if not str(path).endswith(DOCUMENTS + PROSE):
            source = path.read_text(encoding="utf-8")
            texts = written(ast.parse(source if OURS.search(source) else ""))
            found += [(path.name, text) for text in texts if OURS.search(text)]
    assert found == []
