"""Helpers of these tests, and the embedded model as a step sees it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from publisher.api import Model

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The embedded model as the engine hands it to a step."""
    from publisher.builtin.families import StableDiffusion1
    from publisher.model.folder import ModelFolder, read_configs
    from publisher.model.state import State
    from publisher_emoji import model_folder

    configs = read_configs(model_folder())
    anatomy = StableDiffusion1().recognise(configs)
    assert anatomy is not None
    return State(ModelFolder(model_folder(), anatomy, configs), (), tmp_path_factory.mktemp("states"))
