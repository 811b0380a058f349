from __future__ import annotations

from pathlib import Path

import pytest
import torch

import publisher_emoji
from publisher.api import Concept
from publisher_emoji import vocabulary
from publisher_emoji.plugin import EmbeddedEmoji, EmbeddedReference, EmbeddedTransformer, EmojiScorer
from publisher_emoji.training.artwork import load_artwork

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def judge() -> EmojiScorer:
    scorer = EmojiScorer()
    scorer.load(CPU)
    return scorer


def test_the_package_registers_its_source_and_its_scorer() -> None:
    assert publisher_emoji.publisher_register_sources() == (
        EmbeddedEmoji,
        EmbeddedReference,
        EmbeddedTransformer,
    )
    assert publisher_emoji.publisher_register_scorers() == (EmojiScorer,)


def test_the_embedded_model_is_always_there(tmp_path: Path) -> None:
    source = EmbeddedEmoji()
    assert source.check("embedded:emoji") is None
    assert source.locate("embedded:emoji", tmp_path) == source.fetch("embedded:emoji", tmp_path)
    assert (source.fetch("embedded:emoji", tmp_path) / "model_index.json").is_file()


def test_another_name_is_told_the_right_one() -> None:
    assert EmbeddedEmoji().check("embedded:cats") == "the embedded model is called embedded:emoji"


def test_labels_are_the_vocabularys() -> None:
    labels = EmojiScorer().labels()
    assert {kind: len(names) for kind, names in labels.items()} == {"object": 140, "style": 6}


def test_the_card_says_what_is_known_of_the_scorer() -> None:
    card = EmojiScorer().card()
    assert len(card.weights) == 64
    assert card.classes == {"object": 140, "style": 6}
    assert card.preprocessing == "32x32 RGB in [-1, 1]"
    assert "object right in 3324 of 3324 (0.9989 to 1.0000) held-out real images" in card.calibration


def test_it_names_object_and_style_of_images_in_zero_to_one(judge: EmojiScorer) -> None:
    artwork = load_artwork(vocabulary())
    images = torch.nn.functional.avg_pool2d(artwork.images[:30], 2) / 2 + 0.5
    objects = [vocabulary().object_names[i] for i in artwork.objects[:30].tolist()]
    styles = [vocabulary().style_names[i] for i in artwork.styles[:30].tolist()]
    judged = judge.judge(images)
    right = [
        said.labels == {"object": thing, "style": style}
        for said, thing, style in zip(judged, objects, styles, strict=True)
    ]
    assert sum(right) >= 28
    pizza = Concept(id="x", name="x", label=objects[0], prompts=("x",))
    assert judged[0].shows(pizza)


def test_a_style_is_not_seen_where_there_is_no_object(judge: EmojiScorer) -> None:
    (said,) = judge.judge(torch.ones(1, 3, 32, 32))
    assert said.labels == {"object": "nothing", "style": "nothing"}
    assert 0 <= said.scores["style"] <= 1


def test_another_size_is_refused(judge: EmojiScorer) -> None:
    with pytest.raises(ValueError, match=r"not \(1, 3, 64, 64\)"):
        judge.judge(torch.zeros(1, 3, 64, 64))
