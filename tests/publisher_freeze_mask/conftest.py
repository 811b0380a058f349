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
    from mask_cases import model_of, save_tiny_model

    return model_of(save_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="session")
def model_xl(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One with two text encoders, a pooled vector, and another number of heads in each block."""
    from mask_cases import model_of

    from support.tiny_sdxl import save_tiny_sdxl

    return model_of(save_tiny_sdxl(tmp_path_factory.mktemp("tiny_xl") / "model"))
