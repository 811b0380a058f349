"""A small release that passed, and manifests for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from support.releasing import publisher, write


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    return lambda **sections: write(tmp_path / "manifest.yaml", **sections)


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A release that passed: its output folder, and what the command said. Do not change it."""
    folder = tmp_path_factory.mktemp("released")
    path = write(folder / "manifest.yaml")
    return folder / "out", publisher("release", path, "--out", folder / "out", "--throwaway-key", "--json")
