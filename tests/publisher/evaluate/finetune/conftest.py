"""The grey world with two steps, whose models take different numbers of steps to learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.grey import World, write_model
from support.relearning import STEPS


@pytest.fixture
def attacked(world: World, tmp_path: Path) -> World:
    """The base learns in 10 steps, so does the model after the first step; the hardened one takes 20."""
    before, last = write_model(tmp_path / "before"), world.models.hardened
    world.models = replace(world.models, after={"dampen": before, "erase": last})
    world.painters.learns = lambda model, _: STEPS[model]
    return world
