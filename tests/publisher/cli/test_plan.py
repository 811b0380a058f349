"""What the plan says of decisions and judges."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from publisher.cli import main

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
    assert planned.count("judges  emoji 1: object, style") == 1
