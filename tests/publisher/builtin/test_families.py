from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from publisher.api import Latents, ModelError, TextEncoder
from publisher.builtin.families import (
    FAMILIES,
    StableDiffusion1,
    StableDiffusion2,
    StableDiffusionXL,
    UNetAnatomy,
)
from publisher_emoji import model_folder

Configs = dict[str, dict[str, Any]]


def sd1() -> Configs:
    """Return the configurations of Stable Diffusion 1.5, as far as they matter."""
    return {
        "model_index": {
            "_class_name": "StableDiffusionPipeline",
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "text_encoder": {"hidden_act": "quick_gelu", "hidden_size": 768},
        "unet": {
            "cross_attention_dim": 768,
            "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
            "in_channels": 4,
            "layers_per_block": 2,
            "sample_size": 64,
            "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
        },
        "vae": {"block_out_channels": [128, 256, 512, 512]},
    }


def sd2() -> Configs:
    configs = sd1()
    configs["text_encoder"] = {"hidden_act": "gelu", "hidden_size": 1024}
    configs["unet"] |= {"cross_attention_dim": 1024, "use_linear_projection": True}
    return configs


def sdxl() -> Configs:
    configs = sd1()
    configs["model_index"] |= {
        "_class_name": "StableDiffusionXLPipeline",
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    }
    configs["text_encoder_2"] = {"hidden_act": "gelu", "hidden_size": 1280}
    configs["unet"] |= {
        "addition_embed_type": "text_time",
        "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    }
    return configs


def embedded() -> Configs:
    folder = model_folder()
    files = {"model_index": folder / "model_index.json"}
    files |= {name: folder / name / "config.json" for name in ("unet", "text_encoder", "vae")}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in files.items()}


@pytest.mark.parametrize(
    ("configs", "family", "width"),
    [
        (sd1(), "stable-diffusion-1", 768),
        (sd2(), "stable-diffusion-2", 1024),
        (sdxl(), "stable-diffusion-xl", 2048),
        (embedded(), "stable-diffusion-1", 128),
    ],
    ids=["sd1", "sd2", "sdxl", "embedded"],
)
def test_exactly_one_family_recognises_each_model(configs: Configs, family: str, width: int) -> None:
    found = [anatomy for cls in FAMILIES if (anatomy := cls().recognise(configs))]
    assert [(a.family, a.text_width) for a in found] == [(family, width)]


def test_the_parts_of_sdxl_are_named() -> None:
    found = StableDiffusionXL().recognise(sdxl())
    assert found is not None
    assert found.capabilities == {"cross-attention", "clip-text", "membranes", "training"}
    assert found == UNetAnatomy(
        family="stable-diffusion-xl",
        denoiser="unet",
        text_encoders=(
            TextEncoder("text_encoder", "tokenizer", 768),
            TextEncoder("text_encoder_2", "tokenizer_2", 1280),
        ),
        text_width=2048,
        latents=Latents(4, 64, 64, 8),
        pipeline="StableDiffusionXLPipeline",
        penultimate=True,
        pooled_text=True,
        empty_is_zeros=True,
        vae_keys=("latents_mean", "latents_std"),
        cross_attention="attn2",
        attention=("attn1",),
        lora_targets=("to_q", "to_k", "to_v", "to_out.0"),
        conv_targets=("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
        hosts=found.hosts,
        halves="negative-first",
    )


def test_an_image_to_image_pipeline_of_the_same_parts_counts() -> None:
    configs = sd1()
    configs["model_index"]["_class_name"] = "StableDiffusionImg2ImgPipeline"
    found = StableDiffusion1().recognise(configs)
    assert found is not None
    assert found.pipeline == "StableDiffusionPipeline"


@pytest.mark.parametrize("size", [None, [], [8], [8, 8, 8], [8.0, 8.0], "8", True, 0, [8, -8]])
def test_a_model_that_does_not_say_how_large_its_images_are_is_refused(size: Any) -> None:
    configs = sd1()
    configs["unet"]["sample_size"] = size
    with pytest.raises(ModelError, match="nothing says how large"):
        StableDiffusion1().recognise(configs)


@pytest.mark.parametrize(("size", "expected"), [(32, (32, 32)), ([16, 24], (16, 24)), ((16, 24), (16, 24))])
def test_latents_have_the_denoisers_sample_size(size: Any, expected: tuple[int, int]) -> None:
    configs = sd1()
    configs["unet"]["sample_size"] = size
    found = StableDiffusion1().recognise(configs)
    assert found is not None
    assert found.latents.size == expected


def test_pixels_of_a_latent_pixel_are_the_autoencoders() -> None:
    configs = sd1()
    configs["vae"]["block_out_channels"] = [8, 8, 8]
    found = StableDiffusion1().recognise(configs)
    assert found is not None
    assert found.latents.image_size == (256, 256)


@pytest.mark.parametrize(
    "change",
    [
        {"mid_block_type": None},
        {"mid_block_type": "UNetMidBlock2D"},
        {
            "transformer_layers_per_block": [0, [1, 1], [2, 2], 1],
            "reverse_transformer_layers_per_block": [1, [2, 2, 3]],
        },
        {"only_cross_attention": [False] * 4},
    ],
)
def test_distilled_shapes_count_whatever_their_depths(change: dict[str, Any]) -> None:
    configs = sd1()
    configs["unet"] |= change
    assert StableDiffusion1().recognise(configs)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "FluxPipeline"}, "its pipeline is 'FluxPipeline'"),
        ({"model_index.unet": ["diffusers", "SD3Transformer2DModel"]}, "its unet is 'SD3Transformer2DModel'"),
        ({"unet.in_channels": 9}, "reads 9 channels, not 4"),
        ({"unet.addition_embed_type": "image"}, "additional embedding 'image'"),
        ({"unet.cross_attention_dim": 1024}, "reads text 1024 wide, its text encoders write 768"),
        ({"unet.dual_cross_attention": True}, "cross-attention of another make"),
        ({"unet.down_block_types": ["SimpleCrossAttnDownBlock2D"]}, "blocks of another make"),
        ({"text_encoder.hidden_act": "gelu"}, "has the activation 'gelu'"),
        ({"model_index.text_encoder": ["transformers", "T5EncoderModel"]}, "'T5EncoderModel', not CLIPTextModel"),
        ({"model_index.tokenizer": [None, None]}, "it has no tokenizer"),
        ({"unet.encoder_hid_dim": 64}, "cross-attention of another make"),
        ({"unet.only_cross_attention": [False, True]}, "attn1 reads the text too"),
        ({"unet.num_class_embeds": 10}, "reads a class beside the text"),
        ({"unet.down_block_types": 3}, "configurations are malformed"),
        ({"text_encoder.hidden_size": "wide"}, "configurations are malformed"),
        ({"model_index.text_encoder_2": ["transformers", "CLIPTextModel"]}, "text_encoder, text_encoder_2, expected"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_structure_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    configs = copy.deepcopy(sd1())
    for place, value in change.items():
        component, key = place.split(".")
        configs[component][key] = value
    assert StableDiffusion1().recognise(configs) is None
    assert reason in StableDiffusion1().why_not(configs)


def test_the_refiner_alone_is_refused() -> None:
    configs = sdxl()
    configs["model_index"] |= {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None]}
    assert StableDiffusionXL().recognise(configs) is None
    assert "it has the text encoders text_encoder_2, expected" in StableDiffusionXL().why_not(configs)


@pytest.mark.parametrize("cls", FAMILIES, ids=lambda cls: cls.name)
@pytest.mark.parametrize("configs", [{}, {"model_index": {}}, {"model_index": {"_class_name": ["x", "Y"]}}])
def test_configurations_of_nothing_are_refused_not_a_crash(cls: type[StableDiffusion2], configs: Configs) -> None:
    assert cls().recognise(configs) is None
    assert cls().why_not(configs)
