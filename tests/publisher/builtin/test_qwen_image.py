"""Qwen-Image: recognised by its structure, generated as diffusers does, guided by a second prompt."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from publisher.api import Anatomy, ImageRequest, ModelError, TextBlock
from publisher.api.diffusion.latents import encode_images
from publisher.api.diffusion.text import Text
from publisher.builtin.qwen_image import QwenImage
from publisher.model.folder import read_configs
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load

PROMPTS = ["a dog emoji", "a cat"]


def qwen_image() -> dict[str, dict[str, Any]]:
    """Return the configurations of Qwen-Image, as far as they matter."""
    return {
        "model_index": {
            "_class_name": "QwenImagePipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
            "tokenizer": ["transformers", "Qwen2Tokenizer"],
            "transformer": ["diffusers", "QwenImageTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKLQwenImage"],
        },
        "text_encoder": {"hidden_size": 3584, "text_config": {"hidden_size": 3584}},
        "transformer": {
            "guidance_embeds": False,
            "in_channels": 64,
            "joint_attention_dim": 3584,
            "out_channels": 16,
            "patch_size": 2,
        },
        "vae": {"temperal_downsample": [False, True, True], "z_dim": 16},
    }


@pytest.fixture(scope="module")
def folder(tiny_family: Callable[[str], Path]) -> Path:
    return tiny_family("qwen-image")


def anatomy(configs: dict[str, dict[str, Any]]) -> Anatomy:
    found = QwenImage().recognise(configs)
    assert found is not None
    return found


def test_its_parts_are_named() -> None:
    found = anatomy(qwen_image())
    assert found.capabilities == {"text-entry", "training", "membranes"}
    assert [(part.component, part.width, part.kind) for part in found.text_encoders] == [("text_encoder", 3584, "llm")]
    assert found.text_blocks == (TextBlock(("text_encoder",), 512, masked=True),)
    assert (found.latents.channels, found.latents.size, found.latents.image_size) == (16, (128, 128), (1024, 1024))
    assert (found.predictions, found.cross_attention, found.negative) == (("flow",), "", " ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "QwenImageEditPipeline"}, "its pipeline is 'QwenImageEditPipeline'"),
        ({"model_index.vae": ["diffusers", "AutoencoderKLWan"]}, "its vae is 'AutoencoderKLWan', not"),
        ({"model_index.text_encoder": ["transformers", "Qwen3Model"]}, "its text_encoder is 'Qwen3Model'"),
        ({"model_index.tokenizer": [None, None]}, "it has no tokenizer"),
        ({"transformer.guidance_embeds": True}, "reads the guidance scale that it was distilled with"),
        ({"transformer.zero_cond_t": True}, "reads an image beside the text"),
        ({"transformer.use_layer3d_rope": True}, "makes several layers of an image"),
        ({"transformer.in_channels": 128}, "reads 128 numbers a patch and writes 64, its autoencoder has 64"),
        ({"transformer.sample_size": 63}, "its sample_size is odd"),
        ({"transformer.patch_size": 1}, "has patches of 1"),
        ({"transformer.joint_attention_dim": 2048}, "reads text 2048 wide, its text encoder writes 3584"),
        ({"text_encoder.text_config": "wide"}, "configurations are malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_structure_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    configs = copy.deepcopy(qwen_image())
    for place, value in change.items():
        component, key = place.split(".")
        configs[component][key] = value
    assert QwenImage().recognise(configs) is None
    assert reason in QwenImage().why_not(configs)


@pytest.mark.parametrize("scheduler", ["DPMSolverMultistepScheduler", None])
def test_a_scheduler_of_another_process_is_refused(scheduler: str | None) -> None:
    configs = qwen_image()
    configs["model_index"]["scheduler"] = ["diffusers", scheduler]
    with pytest.raises(ModelError, match=f"the scheduler is {scheduler or 'missing'}, and models of this family"):
        QwenImage().recognise(configs)


@pytest.mark.parametrize(("guidance", "negative"), [(4.0, "a pen"), (1.0, "")])
def test_a_prompt_to_guide_against_takes_the_place_of_the_blank(guidance: float, negative: str, folder: Path) -> None:
    from diffusers import QwenImagePipeline

    asked = [
        ImageRequest(concept="", prompt=prompt, seed=seed, steps=2, guidance=guidance, negative_prompt=negative)
        for seed, prompt in enumerate(PROMPTS, 7)
    ]
    ours = generate(load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32), asked)
    plain = QwenImagePipeline.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    noise = torch.cat([torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)])
    packed = plain._pack_latents(noise, 2, 16, 4, 4)
    given = {"negative_prompt": [negative] * 2, "true_cfg_scale": guidance} if guidance > 1 else {}
    size = {"height": 32, "width": 32, "num_inference_steps": 2}
    theirs = plain(PROMPTS, **given, **size, latents=packed, output_type="np").images
    assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), np.round(theirs * 255).astype(np.uint8))
    assert not torch.equal(ours[0], ours[1])


def test_texts_of_different_lengths_make_one_batch(folder: Path) -> None:
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    with torch.no_grad():
        together = pipeline.anatomy.read_text(pipeline, PROMPTS)
        joined = Text.join([pipeline.anatomy.read_text(pipeline, [prompt]) for prompt in PROMPTS])
    assert together.mask is not None
    assert joined.mask is not None
    assert torch.equal(together.mask, joined.mask)
    assert torch.allclose(together.states, joined.states, atol=1e-6)


def test_rows_and_tokens_are_counted_alike(folder: Path) -> None:
    """What stands before the prompt is dropped, what stands behind it is not."""
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    (ids,) = pipeline.anatomy.read_ids(pipeline, PROMPTS[1])
    assert pipeline.tokenizer.decode(ids).endswith(f"{PROMPTS[1]}<|im_end|>\n<|im_start|>assistant\n")
    with torch.no_grad():
        assert pipeline.anatomy.read_text(pipeline, PROMPTS[1:]).states.shape == (1, len(ids), 16)


def test_images_are_encoded_as_the_pipeline_decodes_them(folder: Path) -> None:
    """The pipeline multiplies by the standard deviation and adds the mean before it decodes one frame."""
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(pipeline.vae.config[key])[:, None, None] for key in ("latents_mean", "latents_std"))
    with torch.no_grad():
        wanted = pipeline.vae.encode(image[:, :, None] * 2 - 1).latent_dist.mean[:, :, 0]
    assert torch.allclose(encode_images(pipeline.vae, image) * std + mean, wanted, atol=1e-5)
