"""Z-Image: recognised by its structure, its guidance counted from 0, its text a list without padding."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Anatomy, ModelError, TextBlock
from publisher.builtin.z_image import ZImage
from publisher.model.folder import read_configs
from publisher.runtime.pipelines import load


def z_image() -> dict[str, dict[str, Any]]:
    """Return the configurations of Z-Image, as far as they matter."""
    return {
        "model_index": {
            "_class_name": "ZImagePipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "Qwen3Model"],
            "tokenizer": ["transformers", "Qwen2Tokenizer"],
            "transformer": ["diffusers", "ZImageTransformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "text_encoder": {"hidden_size": 2560},
        "transformer": {"all_f_patch_size": [1], "all_patch_size": [2], "cap_feat_dim": 2560, "in_channels": 16},
        "vae": {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16, "shift_factor": 0.1159},
    }


def anatomy(configs: dict[str, dict[str, Any]]) -> Anatomy:
    found = ZImage().recognise(configs)
    assert found is not None
    return found


def test_its_parts_are_named() -> None:
    found = anatomy(z_image())
    assert found.capabilities == {"text-entry", "training", "membranes"}
    assert found.text_blocks == (TextBlock(("text_encoder",), 512, masked=True),)
    assert (found.latents.channels, found.latents.image_size, found.text_width) == (16, (1024, 1024), 2560)


def test_guidance_is_counted_from_none() -> None:
    scales = [anatomy(z_image()).call(guidance)["guidance_scale"] for guidance in (0.0, 1.0, 4.0)]
    assert scales == [0.0, 0.0, 3.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "ZImageOmniPipeline"}, "its pipeline is 'ZImageOmniPipeline'"),
        ({"model_index.text_encoder": ["transformers", "Gemma2Model"]}, "its text_encoder is 'Gemma2Model'"),
        ({"transformer.siglip_feat_dim": 1152}, "reads images beside the text"),
        ({"transformer.in_channels": 33}, "reads 33 channels, its autoencoder has 16"),
        ({"transformer.all_patch_size": [2, 4]}, "has patches of [2, 4] pixels"),
        ({"transformer.sample_size": 63}, "its sample_size is odd"),
        ({"transformer.cap_feat_dim": 1024}, "reads text 1024 wide, its text encoder writes 2560"),
        ({"vae.shift_factor": None}, "no shift_factor"),
        ({"text_encoder.hidden_size": "wide"}, "configurations are malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_structure_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    configs = copy.deepcopy(z_image())
    for place, value in change.items():
        component, key = place.split(".")
        configs[component][key] = value
    assert ZImage().recognise(configs) is None
    assert reason in ZImage().why_not(configs)


def test_a_scheduler_of_another_process_is_refused() -> None:
    configs = z_image()
    configs["model_index"]["scheduler"] = ["diffusers", "DDIMScheduler"]
    with pytest.raises(ModelError, match="the scheduler is DDIMScheduler, and models of this family"):
        ZImage().recognise(configs)


def test_rows_and_tokens_are_counted_alike(tiny_family: Callable[[str], Path]) -> None:
    """The whole template is read, with the words before the prompt; texts of other lengths are masked."""
    folder = tiny_family("z-image")
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    ids = [pipeline.anatomy.read_ids(pipeline, text)[0] for text in ("a dog emoji", "a cat")]
    assert pipeline.tokenizer.decode(ids[1]).startswith("<|im_start|>user\na cat<|im_end|>")
    with torch.no_grad():
        text = pipeline.anatomy.read_text(pipeline, ["a dog emoji", "a cat"])
    assert text.mask is not None
    assert text.mask.sum(1).tolist() == [len(one) for one in ids]


def test_keys_and_values_have_their_own_number_of_heads(tiny_family: Callable[[str], Path]) -> None:
    found = ZImage().recognise(read_configs(tiny_family("z-image")))
    assert found is not None
    config = {"n_heads": 24, "n_kv_heads": 8}
    names = [f"layers.0.attention.{part}.weight" for part in ("to_q", "to_k", "to_v", "to_out.0")]
    assert [found.heads(name, config) for name in names] == [24, 8, 8, 0]
