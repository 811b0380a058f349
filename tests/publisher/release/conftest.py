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
    """A release that passed: its output folder, and what the command said. Do not change it.

    It was made as in a workflow of GitHub Actions: the outputs of its step are in ``outputs`` beside the folder.
    """
    folder = tmp_path_factory.mktemp("released")
    path = write(folder / "manifest.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_OUTPUT", str(folder / "outputs"))
        return folder / "out", publisher("release", path, "--out", folder / "out", "--throwaway-key", "--json")
