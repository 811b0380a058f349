"""Which files of a folder or a repository make the model."""

from __future__ import annotations

import pytest

from publisher.api import ModelError
from publisher.api.model_files import is_package, model_parts, select_texts, select_weights, under

PARTS = {"unet": ("diffusers", "UNet2DConditionModel"), "tokenizer": ("transformers", "CLIPTokenizer")}


def test_texts_are_those_of_named_parts_and_the_licence() -> None:
    wanted = {"model_index.json", "LICENSE.md", "NOTICE.txt", "README.md", "unet/config.json", "tokenizer/merges.txt"}
    others = {
        "setup.json",
        "vae/config.json",
        "unet/.config.json",
        ".git/config.json",
        "unet/old/config.json",
        "unet/a.png",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.fp16.json",
    }
    assert set(select_texts(wanted | others, PARTS)) == wanted


@pytest.mark.parametrize(
    "kind", ["DDIMScheduler", "CLIPTokenizer", "T5TokenizerFast", "CLIPFeatureExtractor", "CLIPImageProcessor"]
)
def test_parts_without_weights_are_known_by_their_class(kind: str) -> None:
    assert select_weights(set(), "part", {"part": ("transformers", kind)}, lambda _name: {}) == ()


@pytest.mark.parametrize("kind", ["StableDiffusionSafetyChecker", "CLIPVisionModelWithProjection", "AnythingElse"])
def test_any_other_part_has_to_have_them(kind: str) -> None:
    with pytest.raises(ModelError, match=r"has no model\.safetensors"):
        select_weights({"part/config.json"}, "part", {"part": ("transformers", kind)}, lambda _name: {})


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": {"a": 1}}, {"weight_map": {"a": "../b"}}])
def test_an_index_that_leads_nowhere_is_refused(index: dict[str, object]) -> None:
    names = {"unet/diffusion_pytorch_model.safetensors.index.json"}
    with pytest.raises(ModelError, match=r"no index of weights|shards that are not there"), under("models/one"):
        select_weights(names, "unet", PARTS, lambda _name: index)


def test_a_package_lends_its_base_models_card_and_never_its_own() -> None:
    names = {"model_index.json", "README.md", "release/release.json", "release/base-model-card.md", "unet/config.json"}
    assert is_package(names)
    chosen = select_texts(names, PARTS)
    assert ("release/base-model-card.md" in chosen, "README.md" in chosen) == (True, False)
    assert "README.md" not in select_texts(names - {"release/base-model-card.md"}, PARTS)


def test_parts_are_what_the_index_gives_a_class() -> None:
    index = {"_class_name": "X", "unet": ["diffusers", "U"], "vae": [None, None], "flag": False}
    assert model_parts(index) == {"unet": ("diffusers", "U")}
    for odd in (["here", "Net"], ["diffusers", ["here", "Net"]]):
        with pytest.raises(ModelError, match="custom code"):
            model_parts(index | {"unet": odd})
