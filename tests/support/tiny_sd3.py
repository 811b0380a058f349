"""A very small model of Stable Diffusion 3's structure with random weights: joint attention and flow matching."""

from __future__ import annotations

from pathlib import Path

import torch

from support.tiny_parts import autoencoder, save
from support.tiny_text import clip_config, clip_tokenizer, t5_encoder, t5_tokenizer


def save_tiny_sd3(target: Path, *, t5: bool = True, dual: tuple[int, ...] = ()) -> Path:
    """Write it to ``target`` in the ordinary layout; its images have 32 pixels.

    Args:
        target: a folder that is not there yet.
        t5: it has the third text encoder.
        dual: numbers of the blocks with a second attention of the image to itself, as 3.5 medium has them.
    """
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer = clip_tokenizer()
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=8,
        dual_attention_layers=dual,
        qk_norm="rms_norm" if dual else None,
    )
    vae = autoencoder(scaling_factor=1.5, shift_factor=0.06)
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=CLIPTextModelWithProjection(clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(clip_config(tokenizer, act="gelu")),
        tokenizer_2=tokenizer,
        text_encoder_3=t5_encoder() if t5 else None,
        tokenizer_3=t5_tokenizer(512) if t5 else None,
    )
    return save(pipeline, target)
