"""Attacks that search, on the embedded model: the same finds on one core and on two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from searching import evaluated

from publisher.api import SearchAttack
from publisher.builtin.attacks.inversion import ConceptInversion
from publisher.builtin.attacks.latents import Handover
from publisher.builtin.attacks.word_fuzz import WordFuzz
from publisher.evaluate.context import ModelUnderTest
from publisher.runtime import side_by_side
from publisher_emoji import model_folder
from support.anatomies import EMBEDDED

BASE = ModelUnderTest.of(model_folder(), EMBEDDED)
TWO_BATCHES = 33
"""Images, of which 32 are generated together: two workers have one batch each."""


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("attack", "params"),
    [
        pytest.param(WordFuzz(), {"words": ["pizza pizza"], "variants": 1, "again": 1}, id="prompts"),
        pytest.param(
            Handover(),
            {"after": [1], "steps": 2, "images": TWO_BATCHES, "prompts": ["concept"]},
            id="latents",
            marks=pytest.mark.slow,  # 6 seconds: each image is begun by the base model
        ),
        pytest.param(
            ConceptInversion(),
            {"steps": 5, "every": 5, "pictures": 1, "lr": 0.1},
            id="vectors",
            marks=pytest.mark.slow,  # 6 seconds: learned twice, on each of three models
        ),
    ],
)
def test_one_core_and_two_give_the_same_finds_and_bytes(
    attack: SearchAttack[Any], params: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for cores in (1, 2):
        vault = tmp_path / str(cores)
        vault.mkdir()
        (vault / "salt").write_bytes(bytes(32))
        monkeypatch.setattr(side_by_side, "cores", lambda cores=cores: cores)
        torch.set_num_threads(cores)
        result = evaluated(
            attack, BASE, {"images_per_find": TWO_BATCHES, "finds": 1} | params, kept=("cat", "dog"), vault=vault
        )
        assert result.claims[0].checks[0].searches[0].finds
        found.append((result.evidence, {path.name: path.read_bytes() for path in vault.iterdir()}))
    assert found[0] == found[1]
