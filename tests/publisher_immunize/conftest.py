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
    from immunize_cases import model_of
    from tiny import save_tiny

    return model_of(save_tiny(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="session")
def model_xl(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """One with two text encoders and a pooled vector."""
    from immunize_cases import model_of

    from support.tiny_sdxl import save_tiny_sdxl

    return model_of(save_tiny_sdxl(tmp_path_factory.mktemp("tiny_xl") / "model"))
