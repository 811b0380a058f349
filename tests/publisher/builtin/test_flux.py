"""FLUX.1 and Chroma: recognised by their structure, relatives refused with a reason, guidance as each reads it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Anatomy, ImageRequest, ModelError, TextBlock
from publisher.builtin.flux import Chroma, Flux1, FluxTransformer
from publisher.model.folder import ModelFolder, read_configs
from publisher.registry import load_registry
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from publisher.testing.of_families import BY_WEIGHTS
from publisher.testing.plugin import PluginUnderTest
from support.tiny_flux import save_tiny_flux

Configs = dict[str, dict[str, Any]]
T5 = ["transformers", "T5EncoderModel"]
VAE = {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16, "shift_factor": 0.1159}
SHAPE = {"in_channels": 64, "out_channels": None, "joint_attention_dim": 4096}


def dev() -> Configs:
    """Return the configurations of FLUX.1 dev, as far as they matter."""
    return {
        "model_index": {
            "_class_name": "FluxPipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "text_encoder_2": T5,
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "FluxTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "text_encoder": {"hidden_size": 768},
        "text_encoder_2": {"d_model": 4096},
        "tokenizer": {"model_max_length": 77},
        "tokenizer_2": {"model_max_length": 512},
        "transformer": {**SHAPE, "pooled_projection_dim": 768, "guidance_embeds": True},
        "vae": VAE,
    }


def chroma() -> Configs:
    return {
        "model_index": {
            "_class_name": "ChromaPipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": T5,
            "tokenizer": ["transformers", "T5Tokenizer"],
            "transformer": ["diffusers", "ChromaTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "text_encoder": {"d_model": 4096},
        "tokenizer": {"model_max_length": 512},
        "transformer": SHAPE,
        "vae": VAE,
    }


def changed(configs: Configs, change: dict[str, Any]) -> Configs:
    found = copy.deepcopy(configs)
    for place, value in change.items():
        component, key = place.split(".")
        found[component][key] = value
    return found


def recognised(configs: Configs) -> Anatomy:
    return load_registry().recognise(configs, "here")[1]


def test_the_parts_of_dev_are_named() -> None:
    found = recognised(dev())
    assert isinstance(found, FluxTransformer)
    assert (found.family, found.distilled, found.negative) == ("flux-1", True, None)
    assert found.capabilities == {"text-entry", "training", "membranes"}
    assert [(part.component, part.width, part.kind) for part in found.text_encoders] == [
        ("text_encoder", 768, "clip"),
        ("text_encoder_2", 4096, "t5"),
    ]
    assert found.text_blocks == (TextBlock(("text_encoder_2",), 512),)
    assert found.pooled_entry == ("time_text_embed.text_embedder.linear_1.weight",)
    assert (found.text_width, found.latents.channels, found.latents.image_size) == (4096, 16, (1024, 1024))
    assert found.call(3.5) == {"guidance_scale": 3.5, "max_sequence_length": 512}
    assert found.call_against(3.5) == {"guidance_scale": 1.0, "true_cfg_scale": 3.5}


def test_schnell_reads_half_the_rows_and_no_guidance_scale() -> None:
    found = recognised(changed(dev(), {"transformer.guidance_embeds": False}))
    assert (found.text_blocks[0].rows, found.negative) == (256, "")
    assert found.call(3.5) == {"true_cfg_scale": 3.5, "max_sequence_length": 256}


def test_chroma_has_no_pooled_vector() -> None:
    found = recognised(chroma())
    assert (found.family, found.pooled_entry, found.pooled_text) == ("chroma", (), False)
    assert found.text_blocks == (TextBlock(("text_encoder",), 512),)
    assert found.call(5.0) == {"guidance_scale": 5.0, "max_sequence_length": 512}


def test_a_size_in_the_transformers_configuration_counts() -> None:
    found = recognised(changed(dev(), {"transformer.sample_size": [64, 96]}))
    assert found.latents.image_size == (512, 768)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "FluxFillPipeline"}, "FLUX.1 Fill reads more than latents and words"),
        ({"model_index._class_name": "FluxControlPipeline"}, "a picture of edges or depths"),
        ({"model_index._class_name": "FluxKontextPipeline"}, "trained to change an image"),
        ({"model_index._class_name": "FluxPriorReduxPipeline"}, "has no denoiser of its own"),
        ({"model_index._class_name": "Flux2Pipeline"}, "FLUX.2 has another text encoder"),
        ({"model_index._class_name": "HiDreamImagePipeline"}, "text_encoder_4, Llama 3.1) is not in the folder"),
        (
            {"model_index._class_name": "HiDreamImagePipeline", "model_index.text_encoder_4": ["x", "LlamaModel"]},
            "by 49 maps that no step knows",
        ),
        ({"model_index.scheduler": ["diffusers", "DDIMScheduler"]}, "the scheduler is DDIMScheduler, and models of"),
        ({"model_index.scheduler": ["x", None]}, "the scheduler is missing"),
    ],
)
def test_what_looks_like_flux_and_is_not_is_refused_in_words(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelError) as raised:
        recognised(changed(dev(), change))
    assert reason in raised.value.what


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"transformer.in_channels": 384, "transformer.out_channels": 64}, "reads 384 numbers a token and writes 64"),
        ({"transformer.in_channels": 128}, "it reads more than latents and words"),
        ({"vae.shift_factor": None}, "no shift_factor"),
        ({"transformer.sample_size": 63}, "sample_size is odd"),
        ({"text_encoder_2.d_model": 1024}, "reads text 4096 wide, its text_encoder_2 writes 1024"),
        ({"text_encoder.hidden_size": 512}, "a pooled vector 768 wide, its text_encoder writes 512"),
        ({"model_index.transformer": ["nunchaku", "NunchakuFluxTransformer2dModel"]}, "not FluxTransformer2DModel"),
        ({"model_index.tokenizer_2": [None, None]}, "it has no tokenizer_2"),
        ({"transformer.joint_attention_dim": "wide"}, "configurations are malformed"),
    ],
)
def test_another_structure_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    configs = changed(dev(), change)
    assert Flux1().recognise(configs) is None
    assert reason in Flux1().why_not(configs)


@pytest.mark.parametrize("configs", [{}, {"model_index": {}}, {"model_index": {"_class_name": ["x", "Y"]}}])
@pytest.mark.parametrize("cls", [Flux1, Chroma])
def test_configurations_of_nothing_are_refused_not_a_crash(cls: type[Flux1], configs: Configs) -> None:
    assert cls().recognise(configs) is None
    assert cls().why_not(configs)


def test_quantised_weights_are_refused(tiny_family: Callable[[str], Path]) -> None:
    configs = read_configs(tiny_family("flux-1"))
    configs["transformer"]["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    with pytest.raises(ModelError, match="the component is quantised"):
        ModelFolder(tiny_family("flux-1"), recognised(configs), configs)


@pytest.fixture(scope="module")
def schnell(tmp_path_factory: pytest.TempPathFactory) -> PluginUnderTest:
    """A very small model that reads no guidance scale."""
    return PluginUnderTest(Flux1, folder=save_tiny_flux(tmp_path_factory.mktemp("flux") / "schnell", distilled=False))


@pytest.mark.parametrize("rule", BY_WEIGHTS)
def test_a_model_without_distilled_guidance_keeps_the_contract(rule: str, schnell: PluginUnderTest) -> None:
    BY_WEIGHTS[rule](schnell)


def images(folder: Path, guidance: float, negative: str = "") -> torch.Tensor:
    pipeline = load(folder, recognised(read_configs(folder)), torch.device("cpu"), torch.float32)
    asked = ImageRequest(concept="", prompt="a dog", negative_prompt=negative, seed=1, steps=2, guidance=guidance)
    return generate(pipeline, [asked])


def test_guidance_and_a_negative_prompt_change_the_image(
    tiny_family: Callable[[str], Path], schnell: PluginUnderTest
) -> None:
    """A distilled model reads guidance as a number, and against a negative prompt as classifier-free guidance."""
    for folder in (tiny_family("flux-1"), schnell.place, tiny_family("chroma")):
        found = [images(folder, *asked) for asked in ((1.0, ""), (6.0, ""), (6.0, "zzz zzz"), (6.0, "a cat on it"))]
        assert len({one.numpy().tobytes() for one in found}) == 4, folder
