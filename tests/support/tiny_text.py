"""Very small text encoders with random weights, and tokenizers whose words are letters, for models of many families."""

from __future__ import annotations

from typing import Any

from publisher_emoji import model_folder

LETTERS = "\u2581abcdefghijklmnopqrstuvwxyz"


def clip_tokenizer() -> Any:
    """Return the embedded model's, which knows the words of its prompts; 32 tokens at most."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(model_folder() / "tokenizer")


def clip_config(tokenizer: Any, width: int = 16, act: str = "quick_gelu") -> Any:
    """Return the configuration of a CLIP text encoder of two layers, whose pooled vector is 16 wide."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        hidden_size=width,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        projection_dim=16,
        vocab_size=len(tokenizer),
        max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        hidden_act=act,
    )


def t5_tokenizer(length: int = 64) -> Any:
    """Return a tokenizer of T5's make; ``length`` tokens at most."""
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=_letters(), extra_ids=0, model_max_length=length)


def t5_encoder(width: int = 32) -> Any:
    """Return an encoder of one layer for that tokenizer."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=len(_letters()), d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    )


def _letters() -> list[tuple[str, float]]:
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    return special + [(letter, -2.0) for letter in LETTERS]
