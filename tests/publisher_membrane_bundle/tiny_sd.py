"""A very small Stable Diffusion with random weights, and what a training needs around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from publisher.builtin.families import StableDiffusion1, StableDiffusionXL
from publisher.model.folder import ModelFolder, read_configs
from publisher.model.state import State
from publisher_emoji import model_folder
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import Target
from publisher_membrane_bundle.train import Session

CAT = Target("cat", ("cat",), ("",), ("cat",))
DOG = Target("dog", ("dog", "big dog"), ("cat", ""), ("dog", "big dog"))


def save_tiny_sd(target: Path, prediction: str = "epsilon") -> Path:
    """Save 48 hosts, 12 of each transformer; the prompt has a marked effect, as in a trained model."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")
    text = CLIPTextConfig(
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act="quick_gelu",
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
    )
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if ".attn2." in name and name.endswith("weight"):
                parameter.mul_(4)
    vae = AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(target)
    return target


def model_of(folder: Path) -> State:
    """Return a step's input, made of a folder."""
    configs = read_configs(folder)
    families = (StableDiffusion1(), StableDiffusionXL())
    anatomy = next(found for family in families if (found := family.recognise(configs)))
    return State(ModelFolder(folder, anatomy, configs), (), folder.parent / "states")


def seeded(purpose: str) -> torch.Generator:
    """Return a generator as the engine makes it: another stream for another purpose."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:6]))


def silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


def session(scratch: Path, progress: Callable[[int, int, str], None] = silent, **other: Any) -> Session:
    """Return a session on the CPU, in float32."""
    plain = {"device": torch.device("cpu"), "dtype": torch.float32, "generator": seeded}
    return Session(**{**plain, **other}, scratch=scratch, progress=progress)


def quick(**other: Any) -> MembraneParams:
    """Return a short training with a large learning rate."""
    plain = {"steps": 8, "warmup": 2, "cycles": 1, "lr": 3e-3, "lam": 10.0, "pool": 4, "denoising_steps": 6}
    return MembraneParams(**{**plain, **other})
