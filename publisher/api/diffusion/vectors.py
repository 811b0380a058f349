"""Vectors in place of words: what a text encoder reads where a prompt has a slot, with gradients.

A prompt says where the vectors stand: :data:`publisher.api.SLOT`. For the tokenizers, a word stands there that each of
them reads as one token; the embeddings of that token are then replaced on their way into the encoder. So every family's
own way of reading text stays as it is: templates, padding, masks and pooled vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from publisher.api.diffusion.learner import TextSide, text_sides
from publisher.api.diffusion.text import Text
from publisher.api.finds import SLOT
from publisher.errors import ModelError


def token_embeddings(pipeline: Any) -> tuple[Tensor, ...]:
    """Return the token embeddings of each text encoder, ``(tokens, d)`` float32 on the CPU, without gradients."""
    found = [side.encoder.get_input_embeddings().weight for side in text_sides(pipeline)]
    return tuple(weight.detach().float().cpu().clone() for weight in found)


def read_vectors(pipeline: Any, prompts: Sequence[str], vectors: Sequence[Tensor]) -> Text:
    """Return prompts as the denoiser reads them, with vectors in their slots; gradients reach the vectors.

    Args:
        pipeline: with its text encoders.
        prompts: B texts, each with one :data:`publisher.api.SLOT`.
        vectors: of each text encoder, ``(k, d)``.

    Raises:
        ModelError: the tokenizers have no word in common that is one token, or cut the prompt.
        ValueError: a prompt has no slot or several, or vectors of an encoder are missing.
    """
    sides = text_sides(pipeline)
    if any(prompt.count(SLOT) != 1 for prompt in prompts):
        raise ValueError(f"each prompt needs {SLOT} once")
    if len(sides) != len(vectors):
        raise ValueError(f"there are vectors for {len(vectors)} text encoders, and the model has {len(sides)}")
    word = _word(sides, " ".join(prompts))
    texts = [prompt.replace(SLOT, " ".join([word] * len(vectors[0]))) for prompt in prompts]
    with _replaced(sides, word, vectors, len(prompts)):
        found: Text = pipeline.anatomy.read_text(pipeline, texts)
    return found.to(torch.float32)


def slot_rows(pipeline: Any, prompt: str, count: int) -> tuple[int, ...]:
    """Return the positions of the vectors among the tokens that the first text encoder reads of a prompt.

    Args:
        pipeline: with its tokenizers.
        prompt: with one slot.
        count: number of vectors.
    """
    side = text_sides(pipeline)[0]
    word = _word((side,), prompt)
    ids = side.tokenizer(prompt.replace(SLOT, " ".join([word] * count)), verbose=False).input_ids
    return tuple(place for place, number in enumerate(ids) if number == _single(side, word))


def _word(sides: Sequence[TextSide], beside: str) -> str:
    """Return the first word of the first tokenizer that every tokenizer reads as one token, and no prompt has."""
    first = sides[0].tokenizer
    taken = [set(side.tokenizer(beside.replace(SLOT, " "), verbose=False).input_ids) for side in sides]
    for number in range(len(first)):
        word: str = first.decode([number]).strip()
        if not (word.isascii() and word.isalpha() and word.islower()):
            continue
        tokens = [_single(side, word) for side in sides]
        if all(token is not None and token not in there for token, there in zip(tokens, taken, strict=True)):
            return word
    raise ModelError("no word is one token for all tokenizers, so nothing can stand for vectors", where="tokenizer")


def _single(side: TextSide, word: str) -> int | None:
    ids = side.tokenizer(word, add_special_tokens=False, verbose=False).input_ids
    return ids[0] if len(ids) == 1 else None


def words_of(pipeline: Any, vectors: Tensor) -> tuple[str, ...] | None:
    """Return the words whose token embeddings these vectors are; None: one of them is no word's.

    Args:
        pipeline: its first text encoder counts.
        vectors: ``(k, d)``.
    """
    side = text_sides(pipeline)[0]
    with torch.no_grad():
        weight = side.encoder.get_input_embeddings().weight[: len(side.tokenizer)]
        given = vectors.detach().to(weight)
        numbers = torch.cdist(given, weight).argmin(1)
        if not torch.allclose(weight[numbers], given, rtol=1e-4, atol=1e-5):
            return None
    return tuple(side.tokenizer.decode([number]).strip() for number in numbers.tolist())


def nearest_words(pipeline: Any, vectors: Tensor, count: int = 10) -> list[tuple[str, ...]]:
    """Return the words whose token embeddings point most nearly the same way as each vector, the nearest first.

    Args:
        pipeline: its first text encoder counts.
        vectors: ``(k, d)``.
        count: words for each vector.
    """
    side = text_sides(pipeline)[0]
    with torch.no_grad():
        weight = side.encoder.get_input_embeddings().weight[: len(side.tokenizer)]
        alike = F.normalize(vectors.detach().to(weight), dim=-1) @ F.normalize(weight, dim=-1).T
        rows = alike.topk(min(count, len(weight)), dim=-1).indices.tolist()
    return [tuple(side.tokenizer.decode([number]).strip() for number in row) for row in rows]


@contextmanager
def _replaced(sides: Sequence[TextSide], word: str, vectors: Sequence[Tensor], prompts: int) -> Iterator[None]:
    """Let each encoder read vectors where its tokenizer has put the word."""
    handles = [
        side.encoder.get_input_embeddings().register_forward_hook(_hook(_single(side, word) or 0, rows, prompts))
        for side, rows in zip(sides, vectors, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(token: int, rows: Tensor, prompts: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def replace(_module: nn.Module, given: tuple[Tensor, ...], embedded: Tensor) -> Tensor:
        there = given[0].eq(token)
        if int(there.sum()) != prompts * len(rows):
            raise ModelError("the prompt is too long, or its words run together: not all vectors have a place")
        source = rows.to(embedded).expand(prompts, *rows.shape)
        return embedded.masked_scatter(there[..., None], source)

    return replace
