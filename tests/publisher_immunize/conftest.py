"""Helpers of these tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from publisher.api import Model

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A very small model."""
    from publisher.testing.tiny import open_model, save_tiny_model
    from publisher_emoji import model_folder

    folder = tmp_path_factory.mktemp("tiny") / "model"
    return open_model(save_tiny_model(folder, tokenizer=model_folder() / "tokenizer"))


@pytest.fixture(scope="session")
def model_xl(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One with two text encoders and a pooled vector."""
    from publisher.testing.tiny import open_model
    from support.tiny_sdxl import save_tiny_sdxl

    return open_model(save_tiny_sdxl(tmp_path_factory.mktemp("tiny_xl") / "model"))


@pytest.fixture(scope="session")
def model_sd3(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One of Stable Diffusion 3's structure, with a second attention of the image to itself in one block."""
    from publisher.testing.tiny import open_model
    from support.tiny_sd3 import save_tiny_sd3

    return open_model(save_tiny_sd3(tmp_path_factory.mktemp("tiny_sd3") / "model", dual=(0,)))
