"""How the code speaks: functions begin with a verb, the formatter formats, and no class name stands for two things."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = [path for folder in ("publisher", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))]
WORDS = """
Adapt Add Answer Append Apply Arrange Ask Attach Begin Bound Build Call Change Check Choose Clean Clip Close Collect
Compare Complain Compose Compute Copy Count Decide Demand Describe Edit Embed Encode End Erase Fetch Fill Find Forget
Forward Freeze Generate Get Give Group Harden Hash Hear Hide Hold Ignore Immunise Import Install Judge Keep Kill
Learn Leave Let List Load Look Make Measure Merge Minimise Move Multiply Name Note Open Parse Perform Place Plan
Print Promise Push Put Raise Rank Read Record Refuse Register Release Remember Remove Render Replace Report Require
Resolve Restore Return Round Run Sample Say Scale Score See Send Set Shift Show Sign Skip Split Stage Stagger Start
Summarise Tag Take Tell Test Tokenise Train Try Turn Validate Verify Wait Walk Write Yield
"""
VERBS = set(WORDS.split())
"""Verbs that docstrings of functions begin with. Add yours if it is one."""


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of every documented function of a file; properties are attributes."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and not any(ast.unparse(one).endswith("property") for one in node.decorator_list):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", text


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    nouns = [
        f"{name}: {text.splitlines()[0]}"
        for path in CODE
        for name, text in functions(path)
        if text.split()[0].strip(",.:;") not in VERBS
    ]
    assert not nouns, "\n".join(nouns)


def test_the_formatter_is_never_switched_off() -> None:
    switch = "fmt" + ": "
    tests = sorted((ROOT / "tests").rglob("*.py"))
    assert not [path for path in (*CODE, *tests) if switch in path.read_text(encoding="utf-8")]


def test_no_class_name_stands_twice() -> None:
    names = Counter(node.name for path in CODE for node in ast.walk(parsed(path)) if isinstance(node, ast.ClassDef))
    assert {name: count for name, count in names.items() if count > 1} == {}
