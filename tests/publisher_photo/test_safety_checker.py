from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig

from publisher.api import Concept, ModelError
from publisher.testing.battery import broken_rules
from publisher.testing.plugin import PluginUnderTest
from publisher_photo.pixels import prepared
from publisher_photo.safety_checker import SafetyChecker, SafetyCheckerParams

NUDITY = Concept(id="nudity", kind="unsafe", name="nude", label="nudity", prompts=("nude",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=sizes, vision_config=sizes | {"image_size": 32, "patch_size": 16}, projection_dim=16
    )
    network = StableDiffusionSafetyChecker(config)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
        network.concept_embeds_weights.fill_(0.46)
        network.special_care_embeds_weights.fill_(0.2)
    place = tmp_path_factory.mktemp("safety-checker")
    network.save_pretrained(place)
    return place


def test_it_sees_what_the_filter_of_diffusers_would_black_out(folder: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(40, 3, 40, 56, generator=generator) * torch.rand(40, 3, 1, 1, generator=generator)
    found = SafetyChecker(SafetyCheckerParams(weights="model"))
    found.files = {"model": folder}
    found.load(torch.device("cpu"))
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    network = StableDiffusionSafetyChecker.from_pretrained(folder)
    _, wanted = network(prepared(images, found.preparation), images.clone())
    assert [one.shows(NUDITY) for one in found.judge(images)] == wanted
    assert 5 < sum(wanted) < 35


def test_it_keeps_the_contract_of_a_scorer(folder: Path) -> None:
    assert broken_rules(PluginUnderTest(SafetyChecker, {"weights": "model"}, files={"model": folder})) == {}


def test_another_folder_is_refused_with_the_one_to_name(vit: Path) -> None:
    found = SafetyChecker(SafetyCheckerParams(weights="model"))
    found.files = {"model": vit}
    with pytest.raises(ModelError, match=r"this is no safety checker\n.*'safety_checker'"):
        found.card()
