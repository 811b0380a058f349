"""The command as its user meets it: help, errors, exit codes."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from publisher import __version__
from publisher.cli import main
from publisher.cli.main import COMMANDS, ending, run
from publisher.errors import (
    BusyError,
    ExitCode,
    InconclusiveError,
    ManifestError,
    ModelError,
    PluginError,
    PrerequisiteError,
    Problem,
    PublisherError,
    Terminated,
    UsageError,
)

SLOW = {"torch", "diffusers", "transformers", "huggingface_hub", "cryptography", "PIL", "scipy.stats", "scipy.optimize"}
"""What a release needs and a plan does not; the last two take a second of processor time."""


def test_the_commands_are_listed_in_the_order_of_use() -> None:
    help_text = CliRunner().invoke(main, ["--help"]).output
    places = [help_text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_examples_and_keeps_their_lines(name: str) -> None:
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "\n  Examples:\n    publisher " in result.output
    assert "\\b" not in result.output


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"publisher {__version__}\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["relase"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "Error: No such command 'relase'. Did you mean 'release'?\n  See: main --help\n"


def test_no_command_shows_the_help() -> None:
    result = CliRunner().invoke(main, [])
    assert (result.exit_code, result.stderr.startswith("Usage: ")) == (2, True)
    assert "Error" not in result.stderr


def test_a_missing_argument_says_where_help_is() -> None:
    result = CliRunner().invoke(main, ["release"])
    assert result.stderr == "Error: Missing argument 'MANIFEST'.\n  See: main release --help\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("edit"), 2),
        (ModelError("edit"), 2),
        (ManifestError("m.yaml", [Problem(1, 1, "wrong")]), 2),
        (click.UsageError("edit"), 2),
        (click.FileError("x"), 2),
        (PluginError("crash"), 3),
        (PrerequisiteError("missing"), 3),
        (BusyError("busy"), 3),
        (PublisherError("disk"), 3),
        (ZeroDivisionError("bug"), 3),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 3),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x"), 2),
        (SystemExit(0), 3),
        (GeneratorExit(), 3),
        (InconclusiveError("too few"), 4),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
    ],
)
def test_every_way_to_end_has_its_exit_code(error: BaseException, code: int) -> None:
    assert ending(error)[1] == code


def test_an_error_is_one_paragraph_and_has_a_traceback_only_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UsageError("the model is not there", where="manifest.yaml:3", hint="Look at its path.")

    assert run(fail, debug=False) == ExitCode.USAGE
    assert capsys.readouterr() == ("", "Error: manifest.yaml:3: the model is not there\n  Look at its path.\n")
    run(fail, debug=True)
    assert "Traceback" in capsys.readouterr().err


def test_our_own_error_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: 1 / 0, debug=False) == ExitCode.UNDECIDED
    assert "ZeroDivisionError: division by zero\n  This is an error in publisher" in capsys.readouterr().err


def test_what_the_system_says_of_a_file_is_no_error_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda: Path("/" + "a" * 300).read_text(), debug=False) == ExitCode.USAGE
    assert capsys.readouterr().err == f"Error: /{'a' * 300}: File name too long\n"


def test_debug_may_stand_anywhere() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "publisher", "plan", "nowhere.yaml", "--debug"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, "Traceback" in result.stderr) == (2, True)


def test_planning_a_release_imports_nothing_slow() -> None:
    paths = [str(Path(__file__).parents[3] / "manifests" / f"{name}.yaml") for name in ("first", "quickstart")]
    code = f"""
import sys
from click.testing import CliRunner
from publisher.cli import main
result = CliRunner().invoke(main, ["plan", *{paths}])
print(result.exit_code, {SLOW} & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"0 set()\n"


def test_help_imports_neither_plugins_nor_what_they_are_declared_with() -> None:
    code = f"""
import sys
from click.testing import CliRunner
from publisher.cli import main
result = CliRunner().invoke(main, ["--help"])
print(result.exit_code, ({SLOW} | {{"pydantic", "yaml", "numpy", "publisher.api"}}) & set(sys.modules))
"""
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"0 set()\n"
