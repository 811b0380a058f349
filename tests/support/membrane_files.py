"""Membranes with random factors, and models that are headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from publisher.api import Anatomy, ModelInfo, TensorInfo
from publisher.api.membranes import Branch, Host, Membrane, membrane_bytes
from support.anatomies import EMBEDDED

SD1 = {"cross_attention_dim": 768}
SD2 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
SDXL = {
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


class Headers(ModelInfo):
    """A UNet of the configuration, without weights."""

    def __init__(self, config: Mapping[str, Any], without: str = "") -> None:
        from diffusers import UNet2DConditionModel

        with torch.device("meta"):
            weights = UNet2DConditionModel(**config).state_dict()
        self._tensors = {
            name: TensorInfo(name, tuple(weight.shape), "F32", "unet/x.safetensors")
            for name, weight in weights.items()
            if name != without
        }

    @property
    def anatomy(self) -> Anatomy:
        return EMBEDDED

    @property
    def components(self) -> tuple[str, ...]:
        return ("unet",)

    def config(self, component: str) -> Mapping[str, Any]:
        raise KeyError(component)

    def base_files(self, component: str) -> Path:
        raise NotImplementedError(component)

    def tensors(self, component: str) -> Mapping[str, TensorInfo]:
        return self._tensors


def random_membrane(
    hosts: Mapping[str, Host], seed: int = 0, rank: int = 1, alpha: float = 1.0, prompts: tuple[str, ...] = ("gun",)
) -> Membrane:
    """Return a membrane on all hosts whose change is about a tenth of the embedded model's weights."""
    generator = torch.Generator().manual_seed(seed)

    def factor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    return Membrane(
        {
            stem: Branch(factor(rank, host.shape[1]), factor(host.shape[0], rank), alpha, len(host.shape) == 4)
            for stem, host in hosts.items()
        },
        prompts,
    )


def save(path: Path, membrane: Membrane, dtype: torch.dtype | None = None) -> Path:
    """Write a membrane file."""
    path.write_bytes(membrane_bytes(membrane, dtype))
    return path
