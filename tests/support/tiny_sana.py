"""A very small model of Sana's structure with random weights: cross-attention behind Gemma 2, a deep autoencoder."""

from __future__ import annotations

from pathlib import Path

import torch

from support.tiny_language import gemma, gemma_tokenizer
from support.tiny_parts import save


def save_tiny_sana(target: Path) -> Path:
    """Write it to ``target`` in the ordinary layout; its images have 32 pixels.

    Args:
        target: a folder that is not there yet.
    """
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    torch.manual_seed(0)
    tokenizer = gemma_tokenizer()
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        num_cross_attention_heads=4,
        cross_attention_head_dim=4,
        cross_attention_dim=16,
        caption_channels=16,
        mlp_ratio=2.0,
        sample_size=8,
        qk_norm="rms_norm_across_heads",
        timestep_scale=0.5,
    )
    torch.nn.init.uniform_(transformer.caption_norm.weight, 0.5, 1.5)
    blocks = 3
    vae = AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=(8,) * blocks,
        decoder_block_out_channels=(8,) * blocks,
        encoder_layers_per_block=(1,) * blocks,
        decoder_layers_per_block=(1,) * blocks,
        encoder_qkv_multiscales=((),) * blocks,
        decoder_qkv_multiscales=((),) * blocks,
        scaling_factor=0.41,
    )
    pipeline = SanaPipeline(
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        vae=vae,
        text_encoder=gemma(tokenizer, layers=1),
        tokenizer=tokenizer,
    )
    return save(pipeline, target)
