"""A diffusers folder of a few hundred bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from publisher.api import Anatomy, Latents, TextEncoder

ANATOMY = Anatomy("toy", "unet", (TextEncoder("text_encoder", "tokenizer", 4),), 4, Latents(4, 8, 8))
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "safety_checker": [None, None],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}


@pytest.fixture
def anatomy() -> Anatomy:
    return ANATOMY


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    for name in ("text_encoder", "tokenizer", "unet"):
        (folder / name).mkdir(parents=True)
        (folder / name / ("tokenizer_config.json" if name == "tokenizer" else "config.json")).write_text('{"width": 4}')
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    save_file({"embed": torch.zeros(3, 4)}, folder / "text_encoder" / "model.safetensors")
    unet = {"attn2.to_k.weight": torch.eye(4), "attn2.to_v.weight": torch.ones(4, 4), "bias": torch.zeros(4)}
    save_file(unet, folder / "unet" / "diffusion_pytorch_model.safetensors")
    return folder
