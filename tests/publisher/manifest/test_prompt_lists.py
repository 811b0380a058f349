"""Prompts of a check that lie in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.manifest import Resolved

MANIFEST = """
    release: {name: emoji-clean, version: 1.0.0, license: CC-BY-4.0}
    model: embedded:emoji
    concepts: [cigarette]
    keep: {concepts: [apple]}
    prompts: {object: ["{a} {name} emoji"]}
    steps: [{use: erase}]
    evaluate:
      scorer: emoji
      checks:
        - id: listed
          attack: synonyms
          metric: rate
          concepts: [cigarette]
          prompts: PROMPTS
    """
LIST = 'number,prompt\n1,a white stick\n2,"a stick, lit"\n3,a white stick\n'


def test_a_column_is_read_in_its_order_each_prompt_once(
    resolved: Callable[[str], Resolved], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.csv").write_text(LIST, encoding="utf-8-sig")
    (check,) = resolved(MANIFEST.replace("PROMPTS", "{file: list.csv}")).evaluate.checks
    assert check.prompts == ("a white stick", "a stick, lit")
    assert Resolved.model_validate_json(
        resolved(MANIFEST.replace("PROMPTS", "[a, b]")).model_dump_json()
    ).evaluate.checks[0].prompts == ("a", "b")


@pytest.mark.parametrize(
    ("entry", "content", "message"),
    [
        ("{file: no.csv}", LIST, "the list 'no.csv' cannot be read"),
        ("{file: /etc/passwd}", LIST, "must not be a path of this machine"),
        ("{file: list.csv, column: promt}", LIST, "list.csv:1 has no column 'promt'"),
        ("{file: list.csv}", "", "list.csv:1 has no column 'prompt'"),
        ("{file: list.csv}", "prompt\n", "has no row below its first"),
        ("{file: list.csv}", "number,prompt\n1,a stick\n2,\n", "list.csv:3 has no prompt"),
        ("{file: list.csv}", "number,prompt\n1\n", "list.csv:2 has no prompt"),
        ("{file: list.csv}", 'prompt\n"a" b\n', "'list.csv' is no list of comma-separated rows after line 1"),
        ("{file: list.csv}", "prompt\na\x07b\n", "the prompt of list.csv:2 has control characters"),
        ("{file: list.csv}", f"prompt\n{'a' * 2001}\n", "the prompt of list.csv:2 has 2001 characters"),
        ("{file: list.csv}", "prompt\n" + "a\n" * 10_001, "more than 10,000 rows"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_line(
    entry: str, content: str, message: str, problems: Callable[[str], list[str]]
) -> None:
    Path("list.csv").write_text(content, encoding="utf-8")
    (found,) = problems(MANIFEST.replace("PROMPTS", entry))
    assert found.startswith("15:16: ")
    assert message in found


def test_a_list_of_other_bytes_is_refused(problems: Callable[[str], list[str]]) -> None:
    Path("list.csv").write_bytes(b"prompt\n\xff\xfe\n")
    (found,) = problems(MANIFEST.replace("PROMPTS", "{file: list.csv}"))
    assert "'list.csv' is not UTF-8" in found
