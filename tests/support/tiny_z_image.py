"""A very small model of Z-Image's structure with random weights: one stream behind a causal language model."""

from __future__ import annotations

from pathlib import Path

import torch

from support.tiny_language import byte_tokenizer, language_model
from support.tiny_parts import autoencoder, save


def save_tiny_z_image(target: Path) -> Path:
    """Write it to ``target`` in the ordinary layout; its images have 32 pixels.

    Args:
        target: a folder that is not there yet.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    text = Qwen3Config(**language_model(tokenizer, bos_token_id=None, head_dim=8))
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 6, 6],
        axes_lens=[640, 64, 64],
    )
    for name, parameter in transformer.named_parameters():
        if name.endswith("pad_token"):
            torch.nn.init.normal_(parameter)
    vae = autoencoder(scaling_factor=1.5, shift_factor=0.06)
    pipeline = ZImagePipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=Qwen3Model(text),
        tokenizer=tokenizer,
    )
    return save(pipeline, target, sample_size=8)
