"""The grey world of ``support.grey``."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.builtin.attacks.asking import ASKING
from publisher.builtin.metrics import METRICS
from publisher.evaluate.context import ModelsUnderTest, Setting, Tools
from publisher.evaluate.store import ImageStore
from support.grey import KINDS, GreyScorer, Painters, Relearn, World, erased, release_scorer, write_model


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A base model that generates what it is asked for, and a hardened one that erased two concepts."""
    painters = Painters(erased)
    tools = Tools(
        attacks={attack.name: attack() for attack in (*ASKING, Relearn)},
        metrics={metric.name: metric() for metric in METRICS},
        scorers={"grey": release_scorer(GreyScorer())},
        judges=dict.fromkeys(KINDS, "grey"),
        executor=painters,
    )
    models = ModelsUnderTest(write_model(tmp_path / "base"), write_model(tmp_path / "hardened"))
    setting = Setting("cpu", "float32", ImageStore(tmp_path / "images", pytest.fail))
    return World(models, painters, setting, tools)
