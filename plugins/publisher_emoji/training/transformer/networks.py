"""The untrained networks of the embedded transformer, of Stable Diffusion 3's structure.

Text enters as in Stable Diffusion 3.5 medium: the rows of two CLIP text encoders side by side, those of a T5 behind
them, and a pooled vector of both CLIPs. The first CLIP is the embedded model's and stays as it is.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from publisher_emoji.captions import all_captions
from publisher_emoji.concepts import DATA, Vocabulary
from publisher_emoji.training.transformer.recipe import Recipe


def build_pipeline(recipe: Recipe, words: Vocabulary) -> StableDiffusion3Pipeline:
    """Build the pipeline: an untrained denoiser and T5, the embedded model's autoencoder and its CLIP twice."""
    torch.manual_seed(recipe.seed + 10)
    tokenizer = CLIPTokenizer.from_pretrained(DATA / "model" / "tokenizer", model_max_length=recipe.rows)
    first, second = (build_clip(act) for act in ("quick_gelu", "gelu"))
    third = build_t5_tokenizer(words, recipe.rows)
    text = T5EncoderModel(T5Config(vocab_size=len(third), dropout_rate=0.0, **recipe.t5.model_dump()))
    vae = AutoencoderKL.from_pretrained(DATA / "model" / "vae")
    vae.register_to_config(shift_factor=0.0)
    return StableDiffusion3Pipeline(
        transformer=build_transformer(recipe, vae, 2 * first.config.projection_dim),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=text,
        tokenizer_3=third,
    )


def build_clip(activation: str) -> CLIPTextModelWithProjection:
    """Build a text encoder with the embedded model's weights and a projection that changes nothing.

    Args:
        activation: of its perceptrons. The embedded model has ``quick_gelu``; with another one it has to be trained.
    """
    folder = DATA / "model" / "text_encoder"
    config = CLIPTextConfig.from_pretrained(folder, hidden_act=activation)
    model = CLIPTextModelWithProjection.from_pretrained(folder, config=config)  # says that the projection is missing
    with torch.no_grad():
        nn.init.eye_(model.text_projection.weight)
    return model


def build_t5_tokenizer(words: Vocabulary, rows: int) -> T5Tokenizer:
    """Build a tokenizer in which each word of every caption is one piece; other words fall into letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    known = sorted({word for text in all_captions(words) for word in text.split()})
    letters = "\u2581" + "abcdefghijklmnopqrstuvwxyz0123456789-'."
    pieces += [("\u2581" + word, -1.0) for word in known]
    pieces += [(letter, -4.0) for letter in letters if letter not in {piece for piece, _ in pieces}]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=rows)


def build_transformer(recipe: Recipe, vae: AutoencoderKL, pooled: int) -> SD3Transformer2DModel:
    """Build an untrained denoiser whose blocks pass their input on and whose output is zero.

    Args:
        recipe: with its size.
        vae: whose latents it denoises.
        pooled: width of the pooled text vector.
    """
    size = recipe.transformer
    latent = vae.config.sample_size // 2 ** (len(vae.config.block_out_channels) - 1)
    model = SD3Transformer2DModel(
        sample_size=latent,
        patch_size=size.patch,
        in_channels=vae.config.latent_channels,
        out_channels=vae.config.latent_channels,
        num_layers=size.layers,
        attention_head_dim=size.head_width,
        num_attention_heads=size.heads,
        joint_attention_dim=recipe.t5.d_model,
        caption_projection_dim=size.heads * size.head_width,
        pooled_projection_dim=pooled,
        pos_embed_max_size=latent // size.patch,
        dual_attention_layers=size.dual_layers,
        qk_norm="rms_norm",
    )
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            modulates = "norm" in name or name == "proj_out"  # adaLN-zero (Peebles and Xie 2023, arXiv 2212.09748)
            if modulates:
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.normal_(model.time_text_embed.timestep_embedder.linear_1.weight, std=0.02)
    nn.init.normal_(model.time_text_embed.timestep_embedder.linear_2.weight, std=0.02)
    return model
