"""A hub on the loopback, with the real client pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from support.fake_hub import TOKEN, FakeHub, running


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub; the client's cache and credentials are this test's own."""
    with running() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.address)
        template = found.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _seconds: None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        huggingface_hub.close_session()
        yield found
        huggingface_hub.close_session()


@pytest.fixture(scope="session")
def contents(signed: Path) -> dict[str, bytes]:
    """The files of the good package."""
    return {path.relative_to(signed).as_posix(): path.read_bytes() for path in signed.rglob("*") if path.is_file()}
