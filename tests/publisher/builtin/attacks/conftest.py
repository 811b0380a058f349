"""Very small models with random weights, one of each family."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[3]
sys.path[:0] = [str(Path(__file__).parent), str(TESTS / "publisher_membrane_bundle")]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from tiny_sd import save_tiny_sd

    from support.tiny_sdxl import save_tiny_sdxl

    root = tmp_path_factory.mktemp("tiny")
    return {"sd": save_tiny_sd(root / "sd"), "sdxl": save_tiny_sdxl(root / "sdxl")}
