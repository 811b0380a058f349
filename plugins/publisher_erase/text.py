"""Which rows of which embeddings an edit is made of: the border between text and the algebra of ``uce.py``.

A prompt of n positions is embedded as ``(n, d)``: position 0 is the start token (BOS), then come the words (content),
the end token (EOS), and padding. All functions here are pure; :mod:`publisher_erase.encode` runs the encoder.

Which rows count is the parameter ``rows``:

    mean-pad   last content token, EOS, and the mean of the padding with the padding's count as its weight
    content    the same with every content token
    last-eos   last content token and EOS
    last       last content token (the UCE authors' rule of 2025)
    tail       last content token to the end, cut to the shorter of the two (the UCE authors' rule of 2023)
    all        every position, BOS and each padding alike (the RECE authors' rule)

A concept's token is paired with the target's by its distance from the end of the content; where the target has fewer
tokens its first one is taken, and BOS where it has none (as the authors do). ``all`` pairs by position.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from publisher_erase.uce import Rows

RowRule = Literal["content", "mean-pad", "last-eos", "last", "tail", "all"]
WITHOUT_PADDING: tuple[RowRule, ...] = ("last-eos", "last")
"""Rules that look at no padding: the encoder can stop at the longest prompt's EOS, being causal."""


@dataclass(frozen=True)
class Embedding:
    """One encoded prompt."""

    hidden: Tensor
    """``(n, d)`` float64: what cross-attention gets."""
    length: int
    """Positions up to and including EOS, from the tokenizer's attention mask (padding may be any token)."""

    @property
    def content(self) -> Tensor:
        """Rows of the words: ``(length - 2, d)``."""
        return self.hidden[1 : self.length - 1]

    @property
    def eos(self) -> Tensor:
        """``(d,)``."""
        return self.hidden[self.length - 1]

    @property
    def padding(self) -> Tensor:
        """``(n - length, d)``."""
        return self.hidden[self.length :]


def pair_rows(concept: Embedding, target: Embedding, rule: RowRule) -> tuple[Tensor, Tensor, Tensor]:
    """Rows to take away, rows they become, and weights: ``(m, d)``, ``(m, d)``, ``(m,)``."""
    if rule == "all":
        return concept.hidden, target.hidden, concept.hidden.new_ones(len(concept.hidden))
    if rule == "tail":
        old, new = concept.hidden[concept.length - 2 :], target.hidden[target.length - 2 :]
        count = min(len(old), len(new))
        return old[:count], new[:count], old.new_ones(count)
    words = concept.content if rule == "content" else concept.content[-1:]
    rows = [(words, _aligned(target, len(words)))]
    if rule != "last":
        rows.append((concept.eos[None], target.eos[None]))
    weights = [words.new_ones(sum(len(part) for part, _ in rows))]
    if rule in ("content", "mean-pad") and len(concept.padding) and len(target.padding):
        rows.append((concept.padding.mean(0, keepdim=True), target.padding.mean(0, keepdim=True)))
        weights.append(words.new_tensor([float(len(concept.padding))]))
    return torch.cat([old for old, _ in rows]), torch.cat([new for _, new in rows]), torch.cat(weights)


def _aligned(target: Embedding, count: int) -> Tensor:
    """The target's rows that ``count`` content tokens, counted from the end, become: ``(count, d)``."""
    last = target.length - 2
    first = min(1, last)
    return target.hidden[[max(last - back, first) for back in range(count - 1, -1, -1)]]


def retained_rows(text: Embedding, rule: RowRule) -> tuple[Tensor, Tensor]:
    """Rows to keep and their weights, ``(r, d)`` and ``(r,)``: all positions, padding as its mean unless ``all``."""
    if rule in ("all", "tail"):
        return text.hidden, text.hidden.new_ones(len(text.hidden))
    rows, weights = text.hidden[: text.length], text.hidden.new_ones(text.length)
    if rule in WITHOUT_PADDING or not len(text.padding):
        return rows, weights
    padding = text.padding.mean(0, keepdim=True)
    return torch.cat([rows, padding]), torch.cat([weights, weights.new_tensor([float(len(text.padding))])])


def condense(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """At most d rows with the same ``R^T diag(v) R``, of weight 1 where they are new: ``(r, d)``, ``(r,)``."""
    if len(rows) <= rows.shape[1]:
        return rows, weights
    factor = torch.linalg.qr(weights.sqrt()[:, None] * rows, mode="r").R
    return factor, factor.new_ones(len(factor))


def stack_retained(texts: Iterable[Embedding], rule: RowRule) -> tuple[Tensor, Tensor]:
    """All retained rows, each text counting ``1 / number of texts``; never more than d rows at once plus one text's."""
    count = 0
    waiting: list[tuple[Tensor, Tensor]] = []
    for text in texts:
        waiting.append(retained_rows(text, rule))
        count += 1
        if sum(len(part) for part, _ in waiting) > 2 * text.hidden.shape[1]:
            waiting = [condense(*_joined(waiting))]
    rows, weights = condense(*_joined(waiting))
    return rows, weights / count


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([rows for rows, _ in parts]), torch.cat([weights for _, weights in parts])


def stack_rows(
    concepts: Sequence[Sequence[tuple[Embedding, Embedding]]], retained: Iterable[Embedding], rule: RowRule
) -> Rows:
    """The rows of one edit.

    Args:
        concepts: for each concept its prompts, each with its target prompt. Prompts of one concept count as a mean, so
            that neither result nor scale moves with their number; concepts count as a sum, as in the paper.
        retained: prompts to keep, at least one; they count as a mean.
        rule: which positions.
    """
    old, new, weights = [], [], []
    for pairs in concepts:
        for concept, target in pairs:
            c, g, w = pair_rows(concept, target, rule)
            old.append(c)
            new.append(g)
            weights.append(w / len(pairs))
    retain, v = stack_retained(retained, rule)
    return Rows(torch.cat(old), torch.cat(new), torch.cat(weights), retain, v)
