"""Pairs of pictures for the report: which of them, and how many."""

from __future__ import annotations

import base64
import io
from collections import Counter
from typing import Any

import pytest

from publisher.api import (
    Scope,
)
from support.grey import SCOPE, World, check, concept, faithful, kept


def test_where_there_are_too_many_pairs_every_check_keeps_some(world: World) -> None:
    names = [f"thing-{i:02}" for i in range(12)]
    checks = [check(id=name, concepts=(name,)) for name in names]
    world.scope = Scope(concepts=tuple(concept(name, label="cigarette") for name in names))
    found = world.evaluate(*checks).pairs
    counts = Counter(pair.check for pair in found)
    assert len(found) == 48
    assert set(counts.values()) == {4}
    assert [pair.check for pair in found] == sorted(pair.check for pair in found)


def test_what_goes_leads_the_pairs_and_what_stays_keeps_its_worst(world: World) -> None:
    gone, stays = [f"thing-{i}" for i in range(9)], tuple(f"pizza-{i}" for i in range(20))
    world.scope = Scope(
        concepts=tuple(concept(name, label="cigarette") for name in gone),
        keep=tuple(concept(name, label="pizza") for name in stays),
    )
    plain = [check(id=f"{name}.plain", concepts=(name,)) for name in gone]
    swept = [check(id=f"{name}.swept", concepts=(name,), attack="guidance-sweep") for name in gone]
    counts = Counter(pair.check for pair in world.evaluate(*plain, *swept, kept(concepts=stays)).pairs)
    assert counts.pop("kept") == 5
    assert {counts[f"{name}.plain"] for name in gone} == {3}
    assert {counts[f"{name}.swept"] for name in gone} == {1, 2}


def test_the_pictures_of_what_stays_begin_with_what_lost_most(world: World) -> None:
    names = tuple(f"pizza-{i}" for i in range(9))
    world.scope = Scope(concepts=SCOPE.concepts, keep=tuple(concept(name, label="pizza") for name in names))
    world.paint(
        lambda model, request: (
            "nothing" if model == "hardened" and "pizza-7" in request.prompt else faithful(model, request)
        )
    )
    pairs = world.evaluate(check(), kept(concepts=names)).pairs
    assert [pair.concept for pair in pairs if pair.check == "kept"] == [
        "pizza-7",
        "pizza-0",
        "pizza-1",
        "pizza-2",
        "pizza-3",
        "pizza-4",
    ]


def test_the_report_gets_a_few_pairs_of_each_concept(world: World) -> None:
    from PIL import Image

    pairs = world.evaluate(check(concepts=("cigarette", "pistol"))).pairs
    assert [(pair.concept, pair.seed) for pair in pairs[:3]] == [("cigarette", 0), ("pistol", 0), ("cigarette", 1)]
    assert (len(pairs), pairs[0].base_label, pairs[0].hardened_label) == (6, "cigarette", "pizza")
    image = Image.open(io.BytesIO(base64.b64decode(pairs[0].hardened_png)))
    assert (image.size, image.getpixel((0, 0))) == ((8, 8), (3, 3, 3))


@pytest.mark.parametrize("kind", ["person", "unsafe"])
def test_images_of_persons_and_unsafe_ones_are_neither_shown_nor_stored(world: World, tmp_path: Any, kind: str) -> None:
    world.scope = SCOPE.model_copy(update={"concepts": (concept("nude", kind=kind),)})
    world.paint(lambda model, _: "nude" if model == "base" else "nothing")
    result = world.evaluate(check(concepts=("nude",)))
    assert (result.verdict, result.pairs) == ("passed", ())
    assert not (tmp_path / "images").exists()
    assert b"png" not in b"".join(result.evidence.values())
