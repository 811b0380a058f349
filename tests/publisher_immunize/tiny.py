"""A very small Stable Diffusion with random weights, wide enough for the texts of two concepts."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from publisher_emoji import model_folder

WIDTH = 64


def tiny_unet(width: int = WIDTH) -> UNet2DConditionModel:
    """Build one transformer of SD 1.x going down, two going up, with a marked effect of the text."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=width,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".attn2." in name and name.endswith("weight"):
                parameter.mul_(4)
    return unet.eval().requires_grad_(requires_grad=False)


def save_tiny(target: Path) -> Path:
    """Write it in the ordinary layout."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")
    text = CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=32,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="quick_gelu",
    )
    vae = AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=tiny_unet(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)
    return target
