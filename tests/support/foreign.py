"""Install a distribution of a third party, as pip would, for the time of a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from publisher.registry import load_registry

THIRD_PARTY = Path(__file__).parents[1] / "third_party"


@contextmanager
def installed_plugin(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make ``tests/third_party/NAME`` importable, and its entry point known.

    Args:
        name: of the folder and of the entry point; the package is ``publisher_NAME``.
        folder: gets the distribution's metadata.
        monkeypatch: of the test.
    """
    info = folder / "site" / f"publisher_{name}-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: publisher-{name}\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[publisher]\n{name} = publisher_{name}\n")
    for place in (folder / "site", THIRD_PARTY / name):
        monkeypatch.syspath_prepend(place)
    load_registry.cache_clear()
    yield
    load_registry.cache_clear()
