"""A very small model of Lumina Image 2's structure with random weights: one stream behind Gemma 2."""

from __future__ import annotations

from pathlib import Path

import torch

from support.tiny_language import gemma, gemma_tokenizer
from support.tiny_parts import autoencoder, save


def save_tiny_lumina_2(target: Path) -> Path:
    """Write it to ``target`` in the ordinary layout; its images have 32 pixels.

    Args:
        target: a folder that is not there yet.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

    torch.manual_seed(0)
    tokenizer = gemma_tokenizer()
    transformer = Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(300, 64, 64),
        cap_feat_dim=16,
    )
    vae = autoencoder(blocks=4, scaling_factor=1.5, shift_factor=0.06)
    pipeline = Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae,
        text_encoder=gemma(tokenizer),
        tokenizer=tokenizer,
    )
    return save(pipeline, target)
