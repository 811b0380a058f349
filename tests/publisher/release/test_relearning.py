"""Releases whose checks train: what the plan says of them, and what the package holds afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.releasing import publisher

Manifest = Callable[..., Path]
TRAINING = {"evaluation_steps": [0, 1], "seeds": 3, "images_per_evaluation": 2, "images": 2, "batch": 2}


def evaluate(**changes: Any) -> dict[str, Any]:
    check = {
        "id": "lora",
        "attack": "lora",
        "attack_params": TRAINING,
        "metric": "loss-gap",
        "metric_params": {"against": "retrained"},
        "concepts": ["cigarette"],
        "gate": {"lower_at_least": -10.0},
    }
    gates = {
        "erase.cigarette.plain": {"upper_at_most": 0.9},
        "erase.cigarette.paraphrase": {"upper_at_most": 0.9},
        "erase.kept": {"lower_at_least": -1.0},
        "erase.unconditional": {"upper_at_most": 1.0},
    }
    sampling = {"steps": 4, "guidance": 3.0, "images": 9, "kept_images": 3}
    return {
        "scorer": "emoji",
        "retrained": "embedded:emoji",
        "sampling": sampling,
        "gates": gates,
        "checks": [check | changes],
    }


def test_the_plan_says_what_is_trained_and_names_the_retrained_model(manifest: Manifest, tmp_path: Path) -> None:
    result = publisher("plan", manifest(evaluate=evaluate()), "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "retrained    embedded:emoji\n" in result.stdout
    assert "9 trials with 9 steps on 3 models, 12 images of 2 prompts of each model" in result.stdout
    assert "trials  9 with 9 training steps at most" in result.stdout
    assert "takes long" not in result.stdout


def test_the_plan_warns_of_long_trainings(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(evaluate=evaluate(attack_params={"evaluation_steps": [0, 1000]}))
    result = publisher("plan", path, "--out", tmp_path / "out", "--json")
    data = json.loads(result.stdout)
    assert (data["trainings"], data["training_steps"]) == (9, 9000)
    assert "takes long" in publisher("plan", path, "--out", tmp_path / "out").stdout


def test_a_control_that_is_no_step_can_be_seen_in_the_plan(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(evaluate=evaluate(attack_params=TRAINING | {"controls": ["erasure"]}))
    result = publisher("plan", path, "--out", tmp_path / "out")
    assert (result.exit_code, "there is no model 'erasure'" in result.stdout) == (4, True)


@pytest.mark.slow
def test_a_release_with_a_training_check_is_resumed_and_verifies(manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(evaluate=evaluate())
    reports = []
    for name in ("one", "two"):
        words = ("--out", tmp_path / name, "--work", tmp_path / "work", "--throwaway-key")
        result = publisher("release", path, *words)
        assert result.exit_code == 0, result.stdout + result.stderr
        reports.append((tmp_path / name / "small-1.0.0.report" / "report.json").read_bytes())
        times = json.loads((tmp_path / name / "small-1.0.0.report" / "timings.json").read_bytes())
        assert times["relearning"]["lora"] > 0
    assert reports[0] == reports[1]
    check = json.loads(reports[0])["claims"][-1]["checks"][0]
    assert [trial["model"] for trial in check["trials"]] == ["hardened"] * 3 + ["before"] * 3 + ["base"] * 3 + [
        "retrained"
    ] * 3
    key = tmp_path / "one" / "small-1.0.0.pub"
    verified = publisher("verify", tmp_path / "one" / "small-1.0.0", "--key", key, "--json")
    assert verified.exit_code == 0
    answer, report = json.loads(verified.stdout), json.loads(reports[0])
    measured = [check["id"] for claim in report["claims"] for check in claim["checks"]]
    assert (answer["recomputed"], answer["not_recomputed"]) == (measured, {})
