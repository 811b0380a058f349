"""A new token whose embeddings are learned, by diffusers' textual inversion: it is then part of every prompt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from publisher.api import UsageError
from publisher.api.diffusion.learner import TextSide, text_sides


def add_token(pipeline: Any, token: str, words: str, vectors: int) -> tuple[nn.Parameter, ...]:
    """Add the token to every tokenizer, with embeddings that start as the mean of those of ``words``.

    Args:
        pipeline: frozen; diffusers' pipelines then read ``token`` as ``token token_1 token_2 ...``.
        token: unknown to the tokenizers.
        words: words whose mean embedding it starts from.
        vectors: embeddings.

    Returns:
        The token embeddings of each text encoder; gradients reach the new rows alone.

    Raises:
        UsageError: a tokenizer knows the token, or none of the words.
    """
    return tuple(_add(pipeline, side, token, words, vectors) for side in text_sides(pipeline))


def _add(pipeline: Any, side: TextSide, token: str, words: str, vectors: int) -> nn.Parameter:
    start = _mean(side, words).expand(vectors, -1).clone()
    try:
        pipeline.load_textual_inversion(start, token=token, tokenizer=side.tokenizer, text_encoder=side.encoder)
    except ValueError as error:
        raise UsageError(f"{token!r} cannot become a new token: {error}", hint="Choose another for 'rare'.") from error
    names = [token, *(f"{token}_{i}" for i in range(1, vectors))]
    weight: nn.Parameter = side.encoder.get_input_embeddings().weight.requires_grad_()
    weight.register_hook(_only(side.tokenizer.convert_tokens_to_ids(names)))  # type: ignore[no-untyped-call]
    return weight


def _mean(side: TextSide, words: str) -> Tensor:
    """Return the mean embedding of the words, ``(d,)``."""
    ids = side.tokenizer(words, add_special_tokens=False).input_ids
    if not ids:
        raise UsageError(f"{words!r} has no tokens to start a new one from", hint="Set 'initial' to other words.")
    rows: Tensor = side.encoder.get_input_embeddings().weight[ids]
    return rows.mean(0)


def _only(rows: list[int]) -> Callable[[Tensor], Tensor]:
    """Return a gradient hook that lets nothing but these rows through."""

    def keep(gradient: Tensor) -> Tensor:
        kept = torch.zeros_like(gradient)
        kept[rows] = gradient[rows]
        return kept

    return keep
