"""A very small model of Lumina Image 2's structure with random weights: one stream behind Gemma 2."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import Gemma2Config, GemmaTokenizer


def gemma_tokenizer() -> GemmaTokenizer:
    """Return a tokenizer of Gemma's kind that has one token for each byte and no words."""
    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *(f"<0x{byte:02X}>" for byte in range(256))]
    return GemmaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], add_bos_token=True)


def gemma_config(tokenizer: GemmaTokenizer) -> Gemma2Config:
    """Return the configuration of a Gemma 2 of two layers, 16 wide."""
    from transformers import Gemma2Config

    return Gemma2Config(
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        num_hidden_layers=2,
        sliding_window=512,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def save_tiny_lumina_2(target: Path) -> Path:
    """Write it to ``target`` in the ordinary layout; its images have 32 pixels.

    Args:
        target: a folder that is not there yet.
    """
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
    from transformers import Gemma2Model

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
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=1.5,
        shift_factor=0.06,
    )
    pipeline = Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae,
        text_encoder=Gemma2Model(gemma_config(tokenizer)),
        tokenizer=tokenizer,
    )
    pipeline.save_pretrained(target)
    return target
