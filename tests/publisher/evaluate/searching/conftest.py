"""The grey world, hunted by the attack that guesses words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from publisher.evaluate.searching.images import Gallery
from publisher_emoji import model_folder
from support.grey import World, write_model
from support.hunting import Guess


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The embedded model's tokenizer."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")


@pytest.fixture
def hunted(world: World, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    """The grey world with the attack, a tokenizer, and a retrained reference that has no secret word."""
    monkeypatch.setattr(Gallery, "pipeline", lambda *_: SimpleNamespace(tokenizer=tokenizer))
    world.tools = replace(world.tools, attacks={**world.tools.attacks, "guess": Guess()})
    world.models = replace(world.models, retrained=write_model(tmp_path / "retrained"))
    return world
