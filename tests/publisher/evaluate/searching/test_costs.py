"""What searches cost here, learned from those that were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.api import Limits
from publisher.evaluate.searching import costs
from publisher.evaluate.searching.costs import expected_seconds, note_cost
from publisher.evaluate.store import ImageStore

HERE = ("a" * 64, "cpu float32")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path)


def test_unit_costs_are_those_that_fit_what_earlier_searches_took(store: ImageStore) -> None:
    for images, steps in ((10, 0), (4, 30), (0, 50)):
        note_cost(store, *HERE, Limits(images=images, gradient_steps=steps), 0.5 * images + 0.02 * steps)
    assert expected_seconds(store, *HERE, Limits(images=100, gradient_steps=100)) == pytest.approx(52)


def test_a_count_that_nothing_is_known_of_makes_the_time_unknown(store: ImageStore) -> None:
    note_cost(store, *HERE, Limits(images=10), 5.0)
    assert expected_seconds(store, *HERE, Limits(images=10, encoder_rows=1)) is None
    assert expected_seconds(store, HERE[0], "cuda bfloat16", Limits(images=10)) is None
    assert expected_seconds(store, "b" * 64, HERE[1], Limits(images=10)) is None
    assert expected_seconds(store, *HERE, Limits()) is None


def test_old_searches_are_forgotten(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "MOST", 2)
    note_cost(store, *HERE, Limits(images=1), 1000.0)
    for _ in range(2):
        note_cost(store, *HERE, Limits(images=1), 2.0)
    assert expected_seconds(store, *HERE, Limits(images=3)) == pytest.approx(6)
