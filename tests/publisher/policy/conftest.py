"""A small report, and a policy from its text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from publisher.api import ReleaseReport
from publisher.policy import LoadedPolicy, load_policy
from support.packages import report_data

WEIGHTS = "ab" * 32


@pytest.fixture
def record() -> dict[str, Any]:
    """A report that passed, as data: cigarette, plain prompts, n 60, 0% (0% to 6%)."""
    card = {
        "weights": WEIGHTS,
        "preprocessing": "",
        "decision": "arg-max",
        "classes": {"object": 140},
        "calibration": "",
        "use": "emoji",
    }
    concepts = [{"id": "cigarette", "name": "cigarette", "kind": "object"}]
    return {**report_data(), "concepts": concepts, "scorers": {"emoji": card}}


@pytest.fixture
def report(record: dict[str, Any]) -> ReleaseReport:
    return ReleaseReport.parse(record)


@pytest.fixture
def policy(tmp_path: Path) -> Callable[[str], LoadedPolicy]:
    def read(text: str) -> LoadedPolicy:
        path = tmp_path / "policy.yaml"
        path.write_text(f"policy: 1\n{text}")
        return load_policy(path)

    return read
