"""A very small SDXL with random weights: two text encoders, a pooled vector, time ids."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from publisher.api import ImageRequest, cross_attention
from publisher.builtin.families import StableDiffusionXL
from publisher.model.folder import ModelFolder, read_configs
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from support.tiny_sdxl import save_tiny_sdxl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sdxl(tmp_path_factory.mktemp("sdxl"))


def test_sdxl_is_recognised_and_generates(folder: Path) -> None:
    anatomy = StableDiffusionXL().recognise(read_configs(folder))
    assert anatomy is not None
    assert anatomy.text_width == 32
    assert len(cross_attention(ModelFolder(folder, anatomy))) == 2 + 2 + 4
    request = ImageRequest(concept="x", prompt="a cat emoji", seed=1, steps=2, guidance=3.0)
    pipeline = load(folder, anatomy, torch.device("cpu"), torch.float32)
    images = generate(pipeline, [request])
    assert (images.shape, images.dtype) == ((1, 3, 32, 32), torch.uint8)
    assert torch.equal(images, generate(pipeline, [request]))
