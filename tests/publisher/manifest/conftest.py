"""A catalogue of made-up plugins, and manifests written to a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from publisher.errors import ManifestError
from publisher.manifest import Resolved, read
from support.fake_catalog import FakeCatalog


@pytest.fixture
def catalog() -> FakeCatalog:
    return FakeCatalog()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | bytes], Path]:
    """Writes ``m.yaml`` into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> Path:
        path = Path("m.yaml")
        path.write_bytes(dedent(text).encode() if isinstance(text, str) else text)
        return path

    return write


@pytest.fixture
def resolved(write: Callable[[str | bytes], Path], catalog: FakeCatalog) -> Callable[[str], Resolved]:
    """Resolves a text."""
    return lambda text: read(write(text), catalog)


@pytest.fixture
def problems(write: Callable[[str | bytes], Path], catalog: FakeCatalog) -> Callable[[str | bytes], list[str]]:
    """What is wrong with a text, as ``line:column: message``, hints left out."""

    def problems(text: str | bytes) -> list[str]:
        with pytest.raises(ManifestError) as caught:
            read(write(text), catalog)
        return [f"{problem.line}:{problem.column}: {problem.message}" for problem in caught.value.problems]

    return problems
