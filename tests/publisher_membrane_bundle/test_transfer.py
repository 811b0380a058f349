"""A membrane goes to a fine-tuned variant of the model it was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from publisher.api import Model
from publisher.api.membranes import MembraneEntry
from publisher.safeguards.membranes.attached import attach
from publisher_emoji import caption, vocabulary
from publisher_emoji.generate import generate
from publisher_emoji.scorer import EmojiClassifier
from publisher_emoji.training.fine_tune import fine_tune
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import Target
from publisher_membrane_bundle.train import Session, train

STYLES = vocabulary().style_names
TEXTS = tuple(caption("skull", style) for style in (None, *STYLES))
GHOSTS = tuple(caption("ghost", style) for style in (None, *STYLES))
DOGS = tuple(caption("dog", style) for style in (None, *STYLES))


def shows(pipeline: StableDiffusionPipeline, scorer: EmojiClassifier, texts: tuple[str, ...], name: str) -> int:
    """Count the images that show it, of twice as many images as texts."""
    images = generate(pipeline, texts * 2, seed=5, steps=8)
    return sum(judgement.object == name for judgement in scorer.judge(images))


@pytest.mark.slow
def test_it_still_erases_there_and_leaves_others_alone(
    embedded: Model, scorer: EmojiClassifier, tmp_path: Path
) -> None:
    params = MembraneParams.parse({"steps": 120, "lr": 1e-3, "warmup": 12, "cycles": 1, "lam": 30})
    session = Session(
        torch.device("cpu"),
        torch.float32,
        lambda purpose: torch.Generator().manual_seed(len(purpose)),
        tmp_path,
        lambda _done, _total, _text: None,
    )
    membrane = train(embedded, [Target("skull", TEXTS, GHOSTS, TEXTS)], (), params, session).membranes["skull"]
    variant = fine_tune("firefox", 20)
    assert shows(variant, scorer, TEXTS, "skull") >= 13
    entry = MembraneEntry(
        concept="skull", file="skull.safetensors", sha256="0" * 64, words=("skull",), texts=TEXTS, rank=1
    )
    with attach(variant, [(entry, membrane)]) as attached, attached.at({"skull": 1.0}):
        assert shows(variant, scorer, TEXTS, "skull") <= 1
        assert shows(variant, scorer, DOGS, "dog") >= 13
    assert shows(variant, scorer, TEXTS, "skull") >= 13
