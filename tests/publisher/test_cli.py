from __future__ import annotations

from click.testing import CliRunner

from publisher import __version__
from publisher.cli import main


def test_help_says_what_works_today() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    assert "python -m publisher_emoji --help" in result.output
    assert "Commands:" not in result.output


def test_version() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.output) == (0, f"publisher {__version__}\n")


def test_an_unknown_command_is_a_usage_error() -> None:
    result = CliRunner().invoke(main, ["relase"])
    assert result.exit_code == 2
    assert "No such command 'relase'" in result.output
