from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel, SiglipModel

from publisher.api import Concept, ModelError, PrerequisiteError, Scope
from publisher_photo.pixels import prepared
from publisher_photo.towers import image_preparation
from publisher_photo.zero_shot import ZeroShot, ZeroShotParams

TEMPLATES = {"object": ["{a} {label} emoji", "{label}"]}
OTHERS = {"object": ["a pizza emoji", "nothing"]}
WORDS = ("cat", "apple", "skull")
SCOPE = Scope(concepts=tuple(Concept(id=word, name=word, label=word, prompts=(word,)) for word in WORDS))


def scorer(folder: Path, **params: Any) -> ZeroShot:
    found = ZeroShot(ZeroShotParams.parse({"weights": "model", "templates": TEMPLATES} | params))
    found.files, found.scope = {"model": folder}, SCOPE
    found.load(torch.device("cpu"))
    return found


def strengths(found: ZeroShot, images: torch.Tensor) -> torch.Tensor:
    return torch.tensor([found.strengths(images, concept) for concept in SCOPE.concepts]).T


def test_by_sigmoid_a_strength_is_the_largest_probability_that_siglip_gives_to_a_text(
    siglip: Path, images: torch.Tensor
) -> None:
    model, tokenizer = SiglipModel.from_pretrained(siglip), AutoTokenizer.from_pretrained(siglip)
    texts = ["a cat emoji", "cat", "an apple emoji", "apple", "a skull emoji", "skull"]
    tokens = tokenizer(texts, padding="max_length", max_length=12, return_tensors="pt")["input_ids"]
    pixels = prepared(images, image_preparation(siglip))
    with torch.no_grad():
        wanted = model(input_ids=tokens, pixel_values=pixels).logits_per_image.sigmoid()
    found = strengths(scorer(siglip), images)
    torch.testing.assert_close(found, wanted.unflatten(1, (3, 2)).amax(2))
    assert found.std(0).min() > 1e-4


def test_by_softmax_a_strength_is_the_share_against_the_other_texts(clip: Path, images: torch.Tensor) -> None:
    model, tokenizer = CLIPModel.from_pretrained(clip), AutoTokenizer.from_pretrained(clip)
    texts = ["a cat emoji", *OTHERS["object"]]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    pixels = prepared(images, image_preparation(clip))
    with torch.no_grad():
        wanted = model(**tokens, pixel_values=pixels).logits_per_image.softmax(1)[:, 0]
    found = scorer(clip, others=OTHERS, templates={"object": ["{a} {label} emoji"]})
    torch.testing.assert_close(torch.tensor(found.strengths(images, SCOPE.concepts[0])), wanted)


def test_a_labels_own_texts_are_no_rivals_of_it(clip: Path, images: torch.Tensor) -> None:
    templates = {"object": ["{a} {label} emoji"]}
    alone = scorer(clip, others=OTHERS, templates=templates)
    listed = scorer(clip, others={"object": ["a cat emoji", *OTHERS["object"]]}, templates=templates)
    assert listed.strengths(images, SCOPE.concepts[0]) == pytest.approx(alone.strengths(images, SCOPE.concepts[0]))
    assert listed.strengths(images, SCOPE.concepts[1]) != pytest.approx(alone.strengths(images, SCOPE.concepts[1]))
    with pytest.raises(ValueError, match="'others' has no text of the kind 'object'"):
        scorer(clip, others={"object": ["a cat emoji"]}, templates=templates).strengths(images, SCOPE.concepts[0])


def test_siglip_reads_labels_in_lower_case(siglip: Path, images: torch.Tensor) -> None:
    loud = Concept(id="cat", name="CAT", label="CAT", prompts=("CAT",))
    found = scorer(siglip)
    assert found.strengths(images, loud) == found.strengths(images, SCOPE.concepts[0])


def test_it_judges_the_labels_of_the_scope_and_images_of_any_size(siglip: Path, images: torch.Tensor) -> None:
    found = scorer(siglip)
    cut = strengths(found, images).median().item()
    said = scorer(siglip, threshold=cut).judge(images)
    assert [[one.shows(concept) for concept in SCOPE.concepts] for one in said] == (
        strengths(found, images) >= cut
    ).tolist()
    assert found.labels() == {"object": None}
    assert len(found.judge(torch.rand(1, 3, 7, 90))) == 1


def test_matches_are_cosines_of_features_with_texts(clip: Path, images: torch.Tensor) -> None:
    found = scorer(clip, others=OTHERS)
    features = found.features(images)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(6))
    with torch.no_grad():
        wanted = features @ found.towers.of_texts(["a cat emoji"]).T
    torch.testing.assert_close(torch.tensor(found.match(images, ["a cat emoji"] * 6)), wanted[:, 0])
    assert len(found.match(images[:1], ["a cat emoji " * 40])) == 1
    with pytest.raises(ValueError, match="6 images and 1 texts"):
        found.match(images, ["one"])


def test_weights_that_give_no_numbers_leave_the_scorer_unsure(siglip: Path, images: torch.Tensor) -> None:
    found = scorer(siglip)
    with torch.no_grad():
        found.towers.model.vision_model.post_layernorm.weight.fill_(float("nan"))
    assert {one.unsure for one in found.judge(images)} == {("object",)}


def test_softmax_without_rivals_is_refused(clip: Path) -> None:
    with pytest.raises(ValueError, match="'others' has none of the kind 'object'"):
        ZeroShotParams.parse({"score": "softmax", "templates": TEMPLATES})
    with pytest.raises(ValueError, match="'others' has none of the kind 'object'"):
        scorer(clip)


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"templates": {"object": ["a photo"]}}, "need a text with {label} in it"),
        ({"templates": {"object": []}}, "need a text with {label} in it"),
        ({"others": {"person": ["a dog"]}}, "for which there is no template"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ZeroShotParams.parse(params)


def test_outside_a_release_it_says_that_it_needs_concepts(siglip: Path, images: torch.Tensor) -> None:
    found = scorer(siglip)
    found.scope = None
    with pytest.raises(ValueError, match="zero-shot takes any label, so it needs the concepts"):
        found.judge(images)


def test_the_card_names_weights_pixels_and_rule_before_anything_is_loaded(siglip: Path, clip: Path) -> None:
    found = ZeroShot(ZeroShotParams.parse({"weights": "model", "threshold": 0.2, "templates": TEMPLATES}))
    found.files, found.scope = {"model": siglip}, SCOPE
    card = found.card()
    assert card.decision == "every label whose sigmoid of the scaled cosine is at least 0.2"
    assert card.preprocessing.startswith("squeezed to 32 x 32; bicubic with antialias")
    assert card.classes == {"object": 3}
    found.files = {"model": clip}
    assert found.card().weights != card.weights
    assert "share against the other texts" in found.card().decision


def test_models_that_cannot_be_used_are_refused_by_the_card(vit: Path, siglip: Path, tmp_path: Path) -> None:
    found = ZeroShot(ZeroShotParams.parse({"weights": "model"}))
    with pytest.raises(PrerequisiteError, match="the weights 'model' are not on this machine"):
        found.card()
    found.files = {"model": vit}
    with pytest.raises(ModelError, match=r"'vit' does not compare images with texts\n.*'classifier'"):
        found.card()
    for name in ("config.json", "preprocessor_config.json"):
        shutil.copy(siglip / name, tmp_path / name)
    found.files = {"model": tmp_path}
    for ask in (found.check_files, found.card):
        with pytest.raises(ModelError, match=r"there are no weights in this folder\n.*Pickles are not read"):
            ask()


def test_weights_with_gaps_are_refused_where_the_library_fills_them_at_random(siglip: Path, tmp_path: Path) -> None:
    shutil.copytree(siglip, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["logit_bias"]
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"these weights lack 1 tensors .* logit_bias"):
        scorer(tmp_path / "model")
