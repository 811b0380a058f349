"""A signed package with a freeze mask, an audit against it, and its pipeline, to be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.auditing import audit
from publisher.package import keys
from support.auditing import (
    FROZEN,
    Check,
    network,
    write_masked,
    write_pipeline,
)


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A package with a mask, the public key and the private one."""
    folder = tmp_path_factory.mktemp("audit")
    keys.generate(folder / "a.key", folder / "a.pub", None)
    return write_masked(folder / "package", folder / "a.key", network(), FROZEN), folder / "a.pub", folder / "a.key"


@pytest.fixture
def check(signed: tuple[Path, Path, Path]) -> Check:
    return lambda upload: audit(upload, signed[0], signed[1])


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The published pipeline, to be changed."""
    return write_pipeline(tmp_path / "upload", network())
