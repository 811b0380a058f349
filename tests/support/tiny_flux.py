"""Very small models of the structures of FLUX.1 and Chroma with random weights; their images have 32 pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

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
        vae=_autoencoder(),
        text_encoder=CLIPTextModel(clip_config(tokenizer)),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(),
        tokenizer_2=t5_tokenizer(),
    )
    return _saved(pipeline, target)


def save_tiny_chroma(target: Path) -> Path:
    """Write a very small Chroma in the ordinary layout, to a folder that is not there yet."""
    from diffusers import ChromaPipeline, ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler

    torch.manual_seed(0)
    pipeline = ChromaPipeline(
        transformer=ChromaTransformer2DModel(
            **SHAPE, approximator_num_channels=16, approximator_hidden_dim=16, approximator_layers=1
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_autoencoder(),
        text_encoder=t5_encoder(),
        tokenizer=t5_tokenizer(),
    )
    return _saved(pipeline, target)


def _autoencoder() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=0.36,
        shift_factor=0.12,
    )


def _saved(pipeline: Any, target: Path) -> Path:
    """Save a pipeline whose images are smaller than those of the published models."""
    pipeline.save_pretrained(target)
    config = target / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 8}))
    return target
