from __future__ import annotations

from pathlib import Path

import pytest

from publisher.ci import Annotation, Site, annotate, write_outputs
from publisher.errors import PublisherError
from support.releasing import publisher, write

KEY = ("publisherCheck/v1", "0" * 64)


def test_a_report_says_what_did_not_pass_at_its_line(here: Path) -> None:
    said = publisher("report", "report", "--format", "github", "--manifest", "manifest.yaml")
    first, *others = said.stdout.splitlines()
    assert said.exit_code == 0
    assert first.startswith("::error file=manifest.yaml,line=3,col=12,title=emoji-safe 1.0.0%3A synonyms.cigarette::")
    assert "34%25 (27%25 to 42%25)" in first
    assert [line.partition(" ")[0] for line in others] == ["::warning", "::warning"]


def test_foreign_text_can_neither_end_its_line_nor_begin_a_command() -> None:
    one = Annotation("r", "note", "a,b: \n::error::x", "100%\r\n::error::y\x1b[0m", Site("a,b:c.yaml", 1, 2), KEY)
    (line,) = annotate([one]).decode().splitlines()
    assert line == (
        "::notice file=a%2Cb%3Ac.yaml,line=1,col=2,title=a%2Cb%3A %0A%3A%3Aerror%3A%3Ax::100%25%0A::error::y\\x1b[0m"
    )


def test_what_is_waived_is_a_notice() -> None:
    one = Annotation("r", "error", "t", "m", None, KEY, waived="ticket 1")
    assert annotate([one]) == b"::notice title=t::WAIVED (ticket 1): m\n"


def test_every_problem_of_a_bad_manifest_is_a_line_on_stdout(here: Path) -> None:
    bad = write(here / "bad.yaml", steps=[{"use": "erasse"}], seed="x")
    said = publisher("plan", bad.name, "--format", "github")
    assert said.exit_code == 2
    assert [line.startswith("::error file=bad.yaml,line=1,col=") for line in said.stdout.splitlines()] == [True] * 2
    assert "Did you mean 'erase'?" in said.stdout
    assert publisher("plan", "gone.yaml", "--format", "github").stdout.startswith("::error file=gone.yaml,title=")


def test_outputs_are_added_and_cannot_be_forged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_OUTPUT", raising=False)
    write_outputs({"package": "p"})
    file = tmp_path / "outputs"
    file.write_text("other=1\n")
    monkeypatch.setenv("GITHUB_OUTPUT", str(file))
    write_outputs({"package": "p", "report": "r\ndecision=passed"})
    first, second, third, value, forged, end = file.read_text().splitlines()
    assert (first, second, value, forged) == ("other=1", "package=p", "r", "decision=passed")
    assert third == f"report<<{end}"
    assert len(end) > 36
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "no" / "folder"))
    with pytest.raises(PublisherError, match="cannot be written"):
        write_outputs({"package": "p"})
