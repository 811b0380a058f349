"""Images of kept concepts that are left over go to the neighbours of what goes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from publisher.api import Scope
from publisher.api.models import ModelInfo
from publisher.api.words import neighbours
from publisher.errors import ModelError
from publisher.release.prepare import PreparedRelease, prepare

MANIFEST = """
release: {name: x, version: 1.0.0, license: MIT}
model: embedded:emoji
concepts: [{id: skull}, {id: noto, kind: style}]
steps: [{use: erase}]
"""


def prepared(tmp_path: Path) -> PreparedRelease:
    path = tmp_path / "manifest.yaml"
    path.write_text(MANIFEST, encoding="utf-8")
    return prepare(path, tmp_path / "work", fetch=False)


def asked_twice(release: PreparedRelease) -> list[str]:
    kept = next(check for check in release.checks if check.check.endswith("kept"))
    assert sum(kept.samples.values()) == 150
    assert set(kept.samples.values()) == {1, 2}
    return [concept for concept, count in kept.samples.items() if count == 2]


def test_the_nearest_of_each_kind_come_first(tmp_path: Path) -> None:
    release = prepared(tmp_path)
    assert release.model is not None
    first = neighbours(release.resolved.scope, release.model.folder)
    assert sorted(first) == sorted(concept.id for concept in release.resolved.scope.keep)
    assert "ghost" in asked_twice(release)
    assert set(asked_twice(release)) == set(first[:6])
    assert not [line for line in release.warnings if "neighbours" in line]


def test_without_words_the_manifests_order_counts_and_the_plan_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(scope: Scope, model: ModelInfo) -> tuple[str, ...]:
        raise ModelError(f"no words of {len(scope.keep)} can be read", where=str(model))

    monkeypatch.setattr(import_module("publisher.release.prepare"), "neighbours", unreadable)
    release = prepared(tmp_path)
    assert asked_twice(release) == [concept.id for concept in release.resolved.scope.keep[:6]]
    (line,) = [line for line in release.warnings if "neighbours" in line]
    assert line.endswith("no words of 144 can be read")
