"""What is under way counts, whoever does it; what is finished counts exactly."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.api import ImageRequest
from publisher.runtime.generate import generate
from publisher.runtime.meter import Meter, advance

Told = list[tuple[int, int, str]]


def test_parts_count_until_the_pieces_are_settled() -> None:
    told: Told = []
    with Meter(lambda *what: told.append(what), 4, "images") as meter:
        advance(0.75)
        advance(0.75)
        meter.settle(1)
        advance(7)
        meter.settle(3)
    advance(1)
    assert told == [
        (0, 4, "images"),
        (0, 4, "images"),
        (1, 4, "images"),
        (1, 4, "images"),
        (3, 4, "images"),
        (4, 4, "images"),
    ]


def test_a_meter_ends_with_its_block_also_after_an_error() -> None:
    told: Told = []
    with pytest.raises(OSError, match="full"), Meter(lambda *what: told.append(what), 1, ""):
        raise OSError("full")
    advance(1)
    assert told == [(0, 1, "")]


def test_generation_tells_every_sampling_step_and_generates_the_same(loaded: Any) -> None:
    requests = [ImageRequest(concept="x", prompt="a dog emoji", seed=i, steps=3, guidance=3.0) for i in range(8)]
    told: Told = []
    with Meter(lambda *what: told.append(what), 8, "images"):
        watched = generate(loaded, requests)
    assert told == [(done, 8, "images") for done in (0, 2, 4, 6, 7)]
    assert watched.equal(generate(loaded, requests))
