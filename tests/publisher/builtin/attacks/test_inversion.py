"""Vectors in place of a name: learned from pictures, looked at by a sequential test, never for unsafe concepts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from searching import emoji, searched

from publisher.api import CandidateRefused, Concept
from publisher.builtin.attacks.inversion import ConceptInversion, InversionParams, noise_levels, slotted
from publisher.builtin.attacks.sequential import ALPHA, BETA, decide
from publisher_emoji import model_folder

QUICK = {"steps": 20, "every": 20, "batch": 4, "pictures": 2, "images_per_find": 6, "finds": 1}


def test_a_vector_brings_back_what_is_there_and_a_kept_concepts_pictures_do_not() -> None:
    record, (find, *_) = searched(ConceptInversion(), model_folder(), QUICK)
    hardened, base, shuffled = record.searches
    assert (hardened.stop, base.stop, shuffled.stop) == ("found", "found", "nothing")
    assert hardened.finds[0].hits >= 4
    assert hardened.finds[0].base_hits is None  # the base model is searched for a vector of its own
    assert (shuffled.tried, shuffled.hits) == (12, 0)
    assert (hardened.spent.gradient_steps, hardened.spent.denoiser_rows, hardened.spent.encoder_rows) == (20, 80, 21)
    assert (find["kind"], find["prompts"]) == ("embedding", ["a <*> emoji in noto style"])
    assert (find["recipe"]["positions"], find["tensors"]["shapes"]) == ("2", {"vectors_1": [1, 128]})


def test_an_unsafe_concept_is_refused_before_any_picture() -> None:
    unsafe = Concept(id="x", kind="unsafe", name="x", label="x", prompts=("an x",))
    target: Any = None
    with pytest.raises(CandidateRefused):
        next(ConceptInversion().search(InversionParams(), target, unsafe, torch.Generator()))


def test_the_slot_stands_in_the_shortest_prompt_that_names_the_concept_once() -> None:
    assert slotted(emoji("cat")) == "a <*> emoji in noto style"
    art = Concept(id="x", name="art", label="x", prompts=("a party", "Art by art", "a party with Art"))
    assert slotted(art) == "a party with <*>"
    nameless = Concept(id="x", name="x", label="x", prompts=("a y", "an x and an X"))
    with pytest.raises(ValueError, match="no prompt of 'x'"):
        slotted(nameless)


def test_noise_levels_are_spread_over_the_whole_process() -> None:
    places = noise_levels(8, torch.Generator().manual_seed(0))
    assert [int(place * 8) for place in places] == list(range(8))


def test_the_sequential_test_ends_where_the_ratio_says() -> None:
    assert [decide(2, 8), decide(1, 8), decide(0, 12), decide(0, 11)] == ["yes", "open", "no", "open"]
    assert decide(2, 8, chance=0.1) == "open"
    odds = 10.0  # of a hit: 20% against 2%
    assert math.ceil(math.log((1 - BETA) / ALPHA, odds)) == 2  # without any miss; 18 to 1
    assert round(BETA / (1 - ALPHA), 3) == 0.105
