"""A very small model of PixArt's structure with random weights: cross-attention on a projection of T5's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.tiny_parts import autoencoder, save
from support.tiny_text import t5_encoder, t5_tokenizer


def save_tiny_pixart(target: Path, *, alpha: bool = False, **config: Any) -> Path:
    """Write it to ``target`` in the ordinary layout; its images have 32 pixels.

    Args:
        target: a folder that is not there yet.
        alpha: it is a PixArt-alpha, and not a PixArt-Sigma.
        config: more of its transformer's configuration.
    """
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtAlphaPipeline,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    torch.manual_seed(0)
    shape = {
        "sample_size": 8,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "cross_attention_dim": 16,
        "caption_channels": 32,
        "norm_num_groups": 4,
    }
    transformer = PixArtTransformer2DModel(**shape | config)
    pipeline = (PixArtAlphaPipeline if alpha else PixArtSigmaPipeline)(
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
        vae=autoencoder(scaling_factor=0.13),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(300),
    )
    return save(pipeline, target)
