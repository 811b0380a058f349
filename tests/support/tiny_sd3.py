"""A very small model of Stable Diffusion 3's structure with random weights: joint attention and flow matching."""

from __future__ import annotations

from pathlib import Path

import torch

from publisher_emoji import model_folder


def save_tiny_sd3(target: Path, *, t5: bool = True, dual: tuple[int, ...] = ()) -> Path:
    """Write it to ``target`` in the ordinary layout; its images have 32 pixels.

    Args:
        target: a folder that is not there yet.
        t5: it has the third text encoder.
        dual: numbers of the blocks with a second attention of the image to itself, as 3.5 medium has them.
    """
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5Tokenizer,
    )

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")
    text = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "projection_dim": 16,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    letters = special + [(letter, -2.0) for letter in "\u2581abcdefghijklmnopqrstuvwxyz"]
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
    third = T5Config(vocab_size=len(letters), d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5,
        shift_factor=0.06,
    )
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=CLIPTextModelWithProjection(CLIPTextConfig(**text, hidden_act="quick_gelu")),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**text, hidden_act="gelu")),
        tokenizer_2=tokenizer,
        text_encoder_3=T5EncoderModel(third) if t5 else None,
        tokenizer_3=T5Tokenizer(vocab=letters, extra_ids=0, model_max_length=64) if t5 else None,
    )
    pipeline.save_pretrained(target)
    return target
