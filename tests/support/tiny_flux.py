"""Very small models of the structures of FLUX.1 and Chroma with random weights; their images have 32 pixels."""

from __future__ import annotations

from pathlib import Path

import torch

from support.tiny_parts import autoencoder, save
from support.tiny_text import clip_config, clip_tokenizer, t5_encoder, t5_tokenizer

SHAPE = {
    "in_channels": 16,
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": 32,
    "axes_dims_rope": (2, 2, 4),
}
SCALED = {"scaling_factor": 0.36, "shift_factor": 0.12}


def save_tiny_flux(target: Path, *, distilled: bool = True) -> Path:
    """Write a very small FLUX.1 in the ordinary layout.

    Args:
        target: a folder that is not there yet.
        distilled: it reads the guidance scale, as dev does and schnell does not.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = FluxTransformer2DModel(**SHAPE, pooled_projection_dim=16, guidance_embeds=distilled)
    pipeline = FluxPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0 if distilled else 1.0, use_dynamic_shifting=distilled),
        vae=autoencoder(**SCALED),
        text_encoder=CLIPTextModel(clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
    )
    return save(pipeline, target, sample_size=8)


def save_tiny_chroma(target: Path) -> Path:
    """Write a very small Chroma in the ordinary layout, to a folder that is not there yet."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    pipeline = ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            **SHAPE, approximator_num_channels=16, approximator_hidden_dim=16, approximator_layers=1
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder(**SCALED),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
    )
    return save(pipeline, target, sample_size=8)
