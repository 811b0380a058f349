"""Warnings about orders of steps, as ``publisher plan`` and a release show them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from support.releasing import publisher

Manifest = Callable[..., Path]
TWICE = [{"use": "erase", "id": name, "with": {"targets": {"cigarette": "pizza"}}} for name in ("first", "second")]
SAID = "'first' and 'second' are the same kind of step"
CHECK = {
    "id": "plain",
    "attack": "plain",
    "metric": "concept-rate",
    "concepts": ["cigarette"],
    "gate": {"upper_at_most": 0.9},
}


def test_the_plan_warns_and_goes_on(manifest: Manifest, tmp_path: Path) -> None:
    evaluate = {"scorer": "emoji", "sampling": {"steps": 6, "images": 40, "kept_images": 10}, "checks": [CHECK]}
    path = manifest(steps=TWICE, evaluate=evaluate)
    result = publisher("plan", path, "--out", tmp_path / "out")
    assert f"  warning: {SAID}" in result.stdout
    data = json.loads(publisher("plan", path, "--out", tmp_path / "out", "--json").stdout)
    first, *others = data["warnings"]
    assert first.startswith(SAID)
    assert others
    assert all("fewer looks than n says" in warning for warning in others)


def test_a_plan_without_known_trouble_has_no_warning(manifest: Manifest, tmp_path: Path) -> None:
    assert "warning:" not in publisher("plan", manifest(), "--out", tmp_path / "out").stdout
