"""What the plan says of decisions and judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from publisher.cli import main
from support.releasing import publisher, write

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def planned() -> list[str]:
    found = CliRunner().invoke(main, ["plan", str(ROOT / "manifests" / "quickstart.yaml")])
    assert found.exit_code == 0, found.output
    return found.stdout.splitlines()


def decided(planned: list[str], step: str) -> dict[str, object]:
    """Read what a step decides as a manifest would have it."""
    lines = planned[next(i for i, line in enumerate(planned) if line.startswith(f"  {step} ")) :]
    first = next(i for i, line in enumerate(lines) if line.startswith("      decides "))
    last = next(i for i, line in enumerate(lines) if line.startswith("      changes "))
    text = " ".join(line.strip() for line in lines[first:last]).removeprefix("decides ")
    found: dict[str, object] = yaml.safe_load("\n".join(text.split("; ")))
    return found


def test_what_a_step_decides_can_be_pasted_into_a_manifest(planned: list[str]) -> None:
    found = decided(planned, "immunize")
    assert found["preset"] == "small"
    assert found["inner"] == ["lora", "cross-attention", "full"]
    assert (found["first_order"], found["innocents"], found["keep_images"]) == (True, 0, 1)
    assert found["check.settings"] == {"lora": {"lr": 0.003}}
    assert decided(planned, "membrane-bundle")["surrogates"] == {"skull": "ghost"}
    assert decided(planned, "erase") == {"targets.noto": "twemoji"}


def test_one_line_says_who_judges_what(planned: list[str]) -> None:
    assert planned.count("judges  emoji 1: object, style; zero-shot 1: object (second opinion)") == 1


def test_json_says_what_is_wrong_with_a_bad_manifest(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.yaml", steps=[{"use": "erasse"}])
    said = publisher("plan", bad, "--json")
    found = json.loads(said.stdout)
    assert (said.exit_code, found["exit_code"], found["manifest"]) == (2, 2, str(bad))
    (problem,) = found["problems"]
    assert (problem["file"], problem["line"]) == (str(bad), 1)
    assert problem["message"] == "step 1 uses 'erasse', which no plugin provides."


def test_several_manifests_are_all_planned(tmp_path: Path) -> None:
    bad, good = write(tmp_path / "bad.yaml", model=1), write(tmp_path / "good.yaml")
    said = publisher("plan", bad, good, "--json")
    found = json.loads(said.stdout)
    assert (said.exit_code, found["exit_code"]) == (2, 2)
    assert [(one["exit_code"], one.get("name")) for one in found["manifests"]] == [(2, None), (0, "small")]
    assert found["manifests"][1] == json.loads(publisher("plan", good, "--format", "json").stdout)
    said = publisher("plan", bad, good)
    assert said.exit_code == 2
    assert said.stdout.startswith(f"{good}\nsmall 1.0.0\n")
    assert f"Error: {bad}:1:" in said.stderr


def test_two_formats_exclude_each_other() -> None:
    said = publisher("plan", "manifest.yaml", "--json", "--format", "sarif")
    assert (said.exit_code, said.stdout) == (2, "")
