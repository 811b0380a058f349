from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
import torch

from publisher_emoji import vocabulary
from publisher_emoji.scorer import NOTHING, SCORER_FOLDER, EmojiClassifier
from publisher_emoji.shares import share
from publisher_emoji.training.artwork import Artwork, load_artwork
from publisher_emoji.training.config import load_config
from publisher_emoji.training.evaluate import held_out

WORDS = vocabulary()


@pytest.fixture(scope="module")
def sheet() -> dict[str, Any]:
    return json.loads((SCORER_FOLDER / "calibration.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def artwork() -> Artwork:
    return load_artwork(WORDS)


def test_it_is_small_and_the_sheet_is_about_these_weights(sheet: dict[str, Any]) -> None:
    weights = (SCORER_FOLDER / "scorer.safetensors").read_bytes()
    assert len(weights) <= 6_000_000
    assert sheet["weights_sha256"] == hashlib.sha256(weights).hexdigest()


def test_the_sheet_has_both_rates_of_every_class_on_all_three_kinds_of_image(sheet: dict[str, Any]) -> None:
    for kind in ("held_out_augmentations", "vae_reconstructions", "generated_images"):
        assert set(sheet[kind]["objects"]) == set(WORDS.object_names)
        assert set(sheet[kind]["styles"]) == set(WORDS.style_names)
        for rates in (*sheet[kind]["objects"].values(), *sheet[kind]["styles"].values()):
            for rate in (rates["sensitivity"], rates["specificity"]):
                assert rate["low"] <= rate["share"] <= rate["high"]
                assert rate["n"] >= 8


@pytest.mark.slow
def test_the_sheet_is_reproduced_on_a_sample(scorer: EmojiClassifier, artwork: Artwork, sheet: dict[str, Any]) -> None:
    """Check one of the four held-out views: object and style accuracy fall where the sheet says."""
    judged = scorer.judge(held_out(artwork.images, load_config(), view=0))
    objects = [WORDS.object_names[i] for i in artwork.objects.tolist()]
    styles = [WORDS.style_names[i] for i in artwork.styles.tolist()]
    for key, hits in (
        ("object", sum(said.object == name for said, name in zip(judged, objects, strict=True))),
        ("style", sum(said.style == name for said, name in zip(judged, styles, strict=True))),
    ):
        measured, noted = share(hits, len(judged)), sheet["held_out_augmentations"][key]
        assert measured["low"] <= noted["share"] <= measured["high"], key


def test_it_names_plain_renderings(scorer: EmojiClassifier, artwork: Artwork) -> None:
    judged = scorer.judge(torch.nn.functional.avg_pool2d(artwork.images, 2))
    right = [said.object == WORDS.object_names[i] for said, i in zip(judged, artwork.objects.tolist(), strict=True)]
    assert sum(right) / len(right) > 0.97


def test_a_blank_image_and_noise_show_nothing(scorer: EmojiClassifier) -> None:
    noise = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1)).mul(0.7).clamp(-1, 1)
    smooth = torch.nn.functional.interpolate(noise, (32, 32), mode="bilinear")
    blank = torch.ones(1, 3, 32, 32)
    assert [said.object for said in scorer.judge(torch.cat([blank, -blank, smooth]))] == [NOTHING] * 10


def test_images_are_judged_one_by_one(scorer: EmojiClassifier, artwork: Artwork) -> None:
    pixels = torch.nn.functional.avg_pool2d(artwork.images[:6], 2)
    together, _ = scorer.probabilities(pixels)
    alone, _ = scorer.probabilities(pixels[3:4])
    torch.testing.assert_close(together[3:4], alone)


def test_an_image_of_another_size_is_refused(scorer: EmojiClassifier) -> None:
    with pytest.raises(ValueError, match=r"\(n, 3, 32, 32\), not \(1, 3, 64, 64\)"):
        scorer.judge(torch.zeros(1, 3, 64, 64))


def test_nan_is_refused_not_scored(scorer: EmojiClassifier) -> None:
    with pytest.raises(ValueError, match="NaN"):
        scorer.judge(torch.full((1, 3, 32, 32), float("nan")))
