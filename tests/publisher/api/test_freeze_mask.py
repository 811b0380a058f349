"""Units, budgets and digests of freeze masks."""

from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from publisher.api.freeze_mask import (
    Candidate,
    FreezeMask,
    FrozenTensor,
    Share,
    architecture_sha256,
    count,
    digests,
    jaccard,
    joined,
    random_mask,
    top,
)

CANDIDATES = {
    "a.weight": Candidate(shape=(4, 3)),
    "b.weight": Candidate(shape=(6, 2), rows=2),
    "c.weight": Candidate(shape=(5, 1), rows=1),
}


def test_a_tensor_is_one_unit_or_blocks_of_rows() -> None:
    assert CANDIDATES["a.weight"].units() == ((0, 0),)
    assert CANDIDATES["b.weight"].units() == ((0, 2), (2, 4), (4, 6))
    assert Candidate(shape=(5, 7), rows=2).units() == ((0, 2), (2, 4), (4, 5))
    assert Candidate(shape=()).size((0, 0)) == 1


def test_neighbours_become_one_range_and_all_rows_the_tensor() -> None:
    b = CANDIDATES["b.weight"]
    assert joined([(4, 6), (0, 2)], b) == ((0, 2), (4, 6))
    assert joined([(2, 4), (0, 2)], b) == ((0, 4),)
    assert joined(b.units(), b) == ()
    assert joined([(0, 0)], CANDIDATES["a.weight"]) == ()


def test_the_budget_is_met_to_the_smallest_unit_and_never_exceeded() -> None:
    scores = {(name, unit): 0.0 for name, candidate in CANDIDATES.items() for unit in candidate.units()}
    scores["a.weight", (0, 0)] = 2.0
    scores["b.weight", (2, 4)] = 1.0
    assert top(scores, CANDIDATES, 12) == {"a.weight": ()}
    assert top(scores, CANDIDATES, 16) == {"a.weight": (), "b.weight": ((2, 4),)}
    for budget in range(1, 30):
        mask = top(scores, CANDIDATES, budget)
        assert count(mask, CANDIDATES) <= budget
        assert budget - count(mask, CANDIDATES) <= 1


def test_random_masks_differ_by_seed_and_keep_the_share() -> None:
    one, again, other = (random_mask(CANDIDATES, 14, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert one == again
    assert one != other
    assert count(one, CANDIDATES) <= 14


def test_jaccard_counts_parameters_not_tensors() -> None:
    a, b = {"a.weight": ()}, {"a.weight": (), "c.weight": ((0, 3),)}
    assert jaccard(a, a, CANDIDATES) == 1
    assert jaccard(a, b, CANDIDATES) == 12 / 15
    assert jaccard({"c.weight": ((0, 2),)}, {"c.weight": ((1, 3),)}, CANDIDATES) == pytest.approx(1 / 3)
    assert jaccard({}, {}, CANDIDATES) == 1


def test_digests_are_of_the_bytes_after_a_cast_and_of_the_frozen_rows_alone() -> None:
    tensor = torch.tensor([[1.0, 2.0], [3.0, 1.0009765625]])
    assert digests(tensor)["F32"] == hashlib.sha256(struct.pack("<4f", 1, 2, 3, 1.0009765625)).hexdigest()
    assert digests(tensor)["F16"] == hashlib.sha256(struct.pack("<4e", 1, 2, 3, 1.0009765625)).hexdigest()
    assert digests(tensor, ((1, 2),))["F32"] == hashlib.sha256(struct.pack("<2f", 3, 1.0009765625)).hexdigest()
    assert digests(tensor)["BF16"] == digests(tensor.bfloat16())["BF16"]
    assert digests(tensor.half()) == digests(tensor)  # float16 holds these numbers exactly
    assert digests(torch.tensor(1.0))["F32"] == hashlib.sha256(struct.pack("<f", 1)).hexdigest()


def mask(**changes: Any) -> dict[str, Any]:
    """Return a sound mask as JSON data, but for the changes."""
    tensor = torch.ones(4, 3)
    data = FreezeMask(
        component="unet",
        model="m",
        architecture=architecture_sha256({"a.weight": (4, 3)}),
        recipe={},
        tensors=Share(frozen=1, total=3),
        parameters=Share(frozen=12, total=29),
        candidates=CANDIDATES,
        frozen=(FrozenTensor(name="a.weight", shape=(4, 3), sha256=digests(tensor)),),
        others={"seed-1": {"b.weight": ((0, 2),)}},
    ).as_json()
    return data | changes


def test_a_mask_survives_its_file() -> None:
    read = FreezeMask.parse(mask())
    assert FreezeMask.model_validate_json(read.as_file()) == read
    assert read.rows == {"a.weight": ()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"freeze_mask": 2}, "freeze_mask"),
        ({"frozen": mask()["frozen"] * 2}, "each once"),
        ({"others": {"seed-1": {"z.weight": []}}}, "no candidate"),
        ({"frozen": [mask()["frozen"][0] | {"shape": [3, 4]}]}, "another shape"),
        ({"frozen": [mask()["frozen"][0] | {"rows": [[0, 5]]}]}, "outside"),
        ({"frozen": [mask()["frozen"][0] | {"rows": [[2, 3], [0, 1]]}]}, "ascend"),
        ({"frozen": [mask()["frozen"][0] | {"sha256": {"F32": "0" * 64}}]}, "must have"),
    ],
)
def test_what_contradicts_itself_is_no_mask(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        FreezeMask.parse(mask(**changes))
