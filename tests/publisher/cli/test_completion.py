"""A shell asks the program itself what may come next; the supervising process hands its answer on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("publisher")


def ask(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("start", [[str(PROGRAM)], [sys.executable, "-m", "publisher"]])
def test_bash_completes_a_command_after_the_line_of_the_page(start: list[str]) -> None:
    source = ask(*start, _PUBLISHER_COMPLETE="bash_source")
    assert (source.returncode, source.stderr) == (0, "")
    asked = f"COMP_WORDS=(publisher pl); COMP_CWORD=1; _publisher_completion {PROGRAM}; echo ${{COMPREPLY[*]}}"
    assert ask("bash", "-c", f"{source.stdout}\n{asked}").stdout == "plan plugins\n"


@pytest.mark.parametrize(
    ("shell", "line"), [("zsh", "#compdef publisher"), ("fish", "function _publisher_completion;")]
)
def test_other_shells_get_a_script_for_the_name_of_the_program(shell: str, line: str) -> None:
    assert ask(str(PROGRAM), _PUBLISHER_COMPLETE=f"{shell}_source").stdout.splitlines()[0] == line


def test_an_unknown_shell_is_no_success() -> None:
    assert ask(str(PROGRAM), _PUBLISHER_COMPLETE="dos_source").returncode == 1
