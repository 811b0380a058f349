"""Install a plugin of a third party for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.testing import installed

THIRD_PARTY = Path(__file__).parents[1] / "third_party"


@contextmanager
def installed_plugin(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``tests/third_party/NAME`` importable, and its entry point known.

    Args:
        name: of the folder and of the entry point; the package is ``publisher_NAME``.
        folder: gets the distribution's metadata.
        monkeypatch: of the test.
    """
    monkeypatch.syspath_prepend(THIRD_PARTY / name)
    with installed({name: f"publisher_{name}"}, folder):
        yield
