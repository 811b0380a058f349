from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from publisher.api import ImageRequest, ModelError
from publisher.runtime.generate import GenerateError, generate
from publisher.runtime.pipelines import load
from publisher_emoji import model_folder
from support.anatomies import EMBEDDED

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

CPU = torch.device("cpu")


def ask(seed: int = 0, prompt: str = "a pizza emoji", **changes: Any) -> ImageRequest:
    return ImageRequest(**{"concept": "pizza", "prompt": prompt, "seed": seed, "steps": 2, "guidance": 3.0, **changes})


@pytest.fixture(scope="module")
def loaded() -> DiffusionPipeline:
    return load(model_folder(), EMBEDDED, CPU, torch.float32)


def test_images_are_bytes_in_the_models_own_size(loaded: DiffusionPipeline) -> None:
    images = generate(loaded, [ask(0), ask(1)])
    assert (images.shape, images.dtype, images.device.type) == ((2, 3, 32, 32), torch.uint8, "cpu")


def test_the_same_requests_give_the_same_bytes(loaded: DiffusionPipeline) -> None:
    first = generate(loaded, [ask(0), ask(1)])
    assert torch.equal(first, generate(loaded, [ask(0), ask(1)]))


def test_the_noise_is_the_seeds_float32_noise_of_the_cpu(loaded: DiffusionPipeline) -> None:
    """What diffusers generates itself from one generator an image, so that each image of a report can be made again."""
    ours = generate(loaded, [ask(5), ask(6)]).float() / 255
    theirs = loaded(
        ["a pizza emoji"] * 2,
        num_inference_steps=2,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, theirs, atol=0.6 / 255, rtol=0)


def test_everything_in_a_request_matters(loaded: DiffusionPipeline) -> None:
    plain = generate(loaded, [ask()])
    for change in ({"seed": 1}, {"prompt": "a cat"}, {"guidance": 7.5}, {"steps": 3}, {"negative_prompt": "cheese"}):
        assert not torch.equal(plain, generate(loaded, [ask(**change)])), change


def test_guidance_of_one_is_one_pass_of_the_network(loaded: DiffusionPipeline) -> None:
    sizes = []
    handle = loaded.unet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    generate(loaded, [ask(guidance=1.0)])
    generate(loaded, [ask(guidance=3.0)])
    handle.remove()
    assert sizes == [1, 1, 2, 2]


def test_requests_that_do_not_go_together_are_refused(loaded: DiffusionPipeline) -> None:
    for other in (ask(steps=3), ask(guidance=1.0), ask(negative_prompt="cheese")):
        with pytest.raises(ValueError, match="a batch needs"):
            generate(loaded, [ask(), other])
    with pytest.raises(ValueError, match="a batch needs"):
        generate(loaded, [])


def test_a_broken_network_generates_nothing_rather_than_black() -> None:
    broken = load(model_folder(), EMBEDDED, CPU, torch.float32)
    broken.unet.conv_out.weight.data.fill_(float("nan"))
    with pytest.raises(GenerateError, match="NaN"):
        generate(broken, [ask()])


def test_a_safety_checker_in_the_folder_is_left_out(tmp_path: Path) -> None:
    """What is judged is what the weights generate, not what a filter lets through; its weights are not even read."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": True,
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    assert load(folder, EMBEDDED, CPU, torch.float32).safety_checker is None


def test_a_pipeline_that_diffusers_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    with pytest.raises(ModelError, match=r"diffusers [\d.]+ has no pipeline 'InventedPipeline'"):
        load(folder, replace(EMBEDDED, pipeline="InventedPipeline"), CPU, torch.float32)


def test_a_model_without_its_weights_is_an_error_of_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder(), folder, ignore=shutil.ignore_patterns("diffusion_pytorch_model.safetensors"))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder, EMBEDDED, CPU, torch.float32)


def test_loading_shows_no_progress_bars_and_leaves_others_theirs(capfd: pytest.CaptureFixture[str]) -> None:
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    load(model_folder(), EMBEDDED, CPU, torch.float32)
    assert logging.is_progress_bar_enabled() == shown
    assert capfd.readouterr().err == ""
