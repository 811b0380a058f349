"""Facilitated transport: from a prompt to the permeability of every membrane (SPM, arXiv 2312.16145, eq. 10 and 11).

    cosine(p, c)   cos(vec(E(p)), vec(E(c)))        E: text states as the denoiser reads them, all positions flattened
    overlap(p, c)  |T(c) & T(p)| / |T(c)|           T: token ids without special tokens and, in T(c), stop words
    score(p, c)    max(cosine, overlap)             each the largest over the concept's texts or words
    gamma(p, c)    strength * strength_c * score**power * gate(score)
    gate(score)    1 from the threshold on; with softness s the ramp (score - threshold) / s between 0 and 1

With ``prediction``, gamma(p, c) is at least its strength * strength_c where what is predicted for p is like c
(``prediction.py``).
If the gammas of one prompt sum to more than ``cap``, all of them are scaled down to that sum.

All of it is computed in float32 on the CPU: flattened text states overflow in half precision.

Deviations from the authors' code: power 1 (theirs comes to 2: both factors are multiplied by gamma), scores within
[0, 1], and threshold, softness, stop words, aliases and cap, which they do not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from publisher.api.membranes import Transport


def flatten(states: Tensor) -> Tensor:
    """Return text states as unit vectors.

    Args:
        states: ``(n, tokens, width)``, of any dtype and device.

    Returns:
        ``(n, tokens * width)`` float32 on the CPU, without gradient.
    """
    return F.normalize(states.detach().flatten(1).float().cpu(), dim=1)


def cosine(prompts: Tensor, concept: Tensor) -> Tensor:
    """Return the largest cosine of each prompt with any text of a concept.

    Args:
        prompts: ``(n, width)`` from :func:`flatten`.
        concept: ``(texts, width)``, from :func:`flatten` too.

    Returns:
        ``(n,)`` in [0, 1].
    """
    return (prompts @ concept.T).amax(dim=1).clamp(0, 1)


def overlap(prompts: Sequence[AbstractSet[int]], concept: Sequence[AbstractSet[int]]) -> Tensor:
    """Return the largest share of a word's tokens that are in each prompt.

    Args:
        prompts: token ids of n prompts.
        concept: token ids of each of the concept's words; a word without tokens counts as 0.

    Returns:
        ``(n,)`` float32 in [0, 1].
    """
    shares = [max((len(word & read) / len(word) for word in concept if word), default=0.0) for read in prompts]
    return torch.tensor(shares, dtype=torch.float32)


def permeability(score: Tensor, transport: Transport, strengths: Tensor, like: Tensor | None = None) -> Tensor:
    """Return how far each membrane opens.

    Args:
        score: ``(n, k)`` float32 in [0, 1].
        transport: the rule.
        strengths: ``(k,)`` of the membranes themselves.
        like: ``(n, k)``, how much what the prompts are about to generate is like each concept; None: nobody asked.

    Returns:
        Gamma, ``(n, k)`` float32.
    """
    if transport.softness:
        gate = ((score - transport.threshold) / transport.softness).clamp(0, 1)
    else:
        gate = (score >= transport.threshold).float()
    gamma = transport.strength * strengths * score**transport.power * gate
    if transport.prediction is not None and like is not None:
        opened = transport.prediction.strength * strengths * (like >= transport.prediction.threshold)
        gamma = torch.maximum(gamma, opened)
    if transport.cap is not None:
        gamma = gamma * (transport.cap / gamma.sum(dim=1, keepdim=True)).clamp(max=1)
    return gamma


def word_forms(word: str) -> tuple[str, ...]:
    """Return a word as it can stand in a prompt: as it is, in small letters, with capitals; each after a space too.

    Byte-level vocabularies have another token for a word at the start of a text than after a space, and vocabularies
    that know capitals have another one for each.
    """
    cases = dict.fromkeys((word, word.lower(), word.capitalize(), word.title(), word.upper()))
    return tuple(form for case in cases for form in (case, f" {case}"))


def token_sets(tokenizer: Any, texts: Sequence[str]) -> list[frozenset[int]]:
    """Return token ids of each text, as far as the model reads it, without special tokens."""
    read = tokenizer(list(texts), truncation=True, max_length=tokenizer.model_max_length).input_ids
    special = frozenset(tokenizer.all_special_ids)
    return [frozenset(ids) - special for ids in read]


def word_sets(tokenizer: Any, words: Sequence[str], stop_words: Sequence[str]) -> list[frozenset[int]]:
    """Return token ids of each of a concept's words, without those of stop words unless there are no others."""
    found = token_sets(tokenizer, words)
    dropped = frozenset[int]().union(*token_sets(tokenizer, stop_words)) if stop_words else frozenset[int]()
    return [ids - dropped or ids for ids in found]
