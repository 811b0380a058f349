"""Very small causal language models as text encoders, and tokenizers of one token for each byte, for many families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import GemmaTokenizer, Qwen2Tokenizer

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Chat template of Qwen, without what it says of tools and of thinking."""


def byte_tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer of Qwen's kind that has one token for each byte and no words."""
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces = {piece: number for number, piece in enumerate([*bytes_to_unicode().values(), *marks])}
    return Qwen2Tokenizer(vocab=pieces, merges=[], extra_special_tokens=marks[1:], chat_template=CHAT)


def gemma_tokenizer() -> GemmaTokenizer:
    """Return a tokenizer of Gemma's kind that has one token for each byte and no words."""
    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *(f"<0x{byte:02X}>" for byte in range(256))]
    return GemmaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[], add_bos_token=True)


def gemma(tokenizer: GemmaTokenizer, layers: int = 2) -> Any:
    """Return a Gemma 2 that is 16 wide, with random weights."""
    from transformers import Gemma2Config, Gemma2Model

    more = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 512, "max_position_embeddings": 2048}
    return Gemma2Model(Gemma2Config(**language_model(tokenizer, num_hidden_layers=layers, **more)))


def language_model(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """Return the configuration of a language model of two layers, 16 wide.

    Args:
        tokenizer: that feeds it.
        more: what a kind has besides, or in another way.
    """
    plain = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return plain | more
