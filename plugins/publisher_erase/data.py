"""Prompts as numbers: embedded as the pipeline does it, and the rows of embeddings that an edit is made of.

The text encoders are the only networks that the step loads. Each distinct sequence of tokens is encoded once, in
batches, in float32.

A prompt of n positions is embedded as ``(n, d)``: position 0 is the start token (BOS), then come the words (content),
the end token (EOS), and padding. Which rows count is the parameter ``rows``:

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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from publisher.api import Model, ModelError, TextEncoder, UsageError
from publisher.api.loading import load_component
from publisher_erase.plan import Tokens
from publisher_erase.uce import Rows

RowRule = Literal["content", "mean-pad", "last-eos", "last", "tail", "all"]
WITHOUT_PADDING: tuple[RowRule, ...] = ("last-eos", "last")
"""Rules that look at no padding: the encoder can stop at the longest prompt's EOS, being causal."""
BATCH = 32
"""Number of prompts that an encoder reads at once."""


@dataclass(frozen=True)
class Embedding:
    """One encoded prompt."""

    hidden: Tensor
    """Rows ``(n, d)``, float64, that cross-attention gets."""
    length: int
    """Number of positions up to and including EOS, from the tokenizer's attention mask (padding may be any token)."""
    copies: int = 1
    """Number of positions that each row of the padding stands for."""

    @property
    def content(self) -> Tensor:
        """Rows of the words: ``(length - 2, d)``."""
        return self.hidden[1 : self.length - 1]

    @property
    def eos(self) -> Tensor:
        """Row of the end token, ``(d,)``."""
        return self.hidden[self.length - 1]

    @property
    def padding(self) -> Tensor:
        """Rows of the padding, ``(n - length, d)``."""
        return self.hidden[self.length :]

    def condensed(self) -> Embedding:
        """Return the same with the mean of the padding in its place: T5 pads a text to hundreds of rows."""
        if len(self.padding) <= 1:
            return self
        rows = torch.cat([self.hidden[: self.length], self.padding.mean(0, keepdim=True)])
        return Embedding(rows, self.length, self.copies * len(self.padding))


def pair_rows(concept: Embedding, target: Embedding, rule: RowRule) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows to take away, rows they become, and weights: ``(m, d)``, ``(m, d)``, ``(m,)``."""
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
        weights.append(words.new_tensor([float(len(concept.padding) * concept.copies)]))
    return torch.cat([old for old, _ in rows]), torch.cat([new for _, new in rows]), torch.cat(weights)


def _aligned(target: Embedding, count: int) -> Tensor:
    """Return the target's rows that ``count`` content tokens, counted from the end, become: ``(count, d)``."""
    last = target.length - 2
    first = min(1, last)
    return target.hidden[[max(last - back, first) for back in range(count - 1, -1, -1)]]


def retained_rows(text: Embedding, rule: RowRule) -> tuple[Tensor, Tensor]:
    """Return rows to keep ``(r, d)`` and their weights ``(r,)``.

    ``all`` and ``tail``: every position. ``content`` and ``mean-pad``: those of the text, and padding once as its mean.
    ``last`` and ``last-eos``: those of the text, without padding.
    """
    if rule in ("all", "tail"):
        return text.hidden, text.hidden.new_ones(len(text.hidden))
    rows, weights = text.hidden[: text.length], text.hidden.new_ones(text.length)
    if rule in WITHOUT_PADDING or not len(text.padding):
        return rows, weights
    padding = text.padding.mean(0, keepdim=True)
    return torch.cat([rows, padding]), torch.cat(
        [weights, weights.new_tensor([float(len(text.padding) * text.copies)])]
    )


def condense(rows: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return at most d rows with the same ``R^T diag(v) R``, of weight 1 where they are new: ``(r, d)``, ``(r,)``."""
    if len(rows) <= rows.shape[1]:
        return rows, weights
    factor = torch.linalg.qr(weights.sqrt()[:, None] * rows, mode="r").R
    return factor, factor.new_ones(len(factor))


def stack_retained(texts: Iterable[Embedding], rule: RowRule) -> tuple[Tensor, Tensor]:
    """Return all retained rows, each text counting ``1 / number of texts``; it holds about 2 d rows at once."""
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
    """Return the rows of one edit.

    Args:
        concepts: for each concept its prompts, each with its target prompt. Prompts of one concept count as a mean, so
            that neither result nor scale moves with their number; concepts count as a sum, as in the paper.
        retained: prompts to keep, at least one; they count as a mean.
        rule: rule of the positions that count.
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


class Encoders:
    """All text encoders of a model, ready to run.

    Raises:
        ModelError: an encoder is of another class, or its width is not what the denoiser expects.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.tell: Callable[[int], None] = lambda _: None
        """Function that is told how many more prompts are embedded."""
        self._parts = model.anatomy.text_encoders
        self._penultimate = model.anatomy.penultimate
        self._device = device
        self._tokenizers = [load_component(model, part.tokenizer, device, torch.float32) for part in self._parts]
        self._networks = [_network(model, part, device) for part in self._parts]
        self._positions = min(
            min(int(tokenizer.model_max_length), int(network.config.max_position_embeddings))
            for tokenizer, network in zip(self._tokenizers, self._networks, strict=True)
        )

    def tokens(self, text: str) -> Tokens:
        """Tokenise one prompt.

        Raises:
            UsageError: the pipeline would silently cut it.
            ModelError: the tokenizers disagree on its length.
        """
        lengths, padded = set(), []
        for tokenizer in self._tokenizers:
            count = len(tokenizer(text, verbose=False).input_ids)
            if count > self._positions:
                raise UsageError(
                    f"the prompt {text!r} has {count - 2} tokens, the model reads {self._positions - 2}",
                    hint="Shorten it: the rest would be cut off without a word.",
                )
            lengths.add(count)
            padded.append(tuple(tokenizer(text, padding="max_length", max_length=self._positions).input_ids))
        if len(lengths) != 1:
            raise ModelError(f"the tokenizers split the prompt {text!r} into different numbers of tokens")
        return Tokens(text, tuple(padded), lengths.pop())

    def embed(self, prompts: Sequence[Tokens], *, padding: bool = True) -> Iterator[Embedding]:
        """Embed prompts in their order, a batch at a time.

        Args:
            prompts: prompts that :meth:`tokens` made.
            padding: False leaves out what follows the longest prompt's EOS. Exact, for the encoders are causal.
        """
        stop = self._positions if padding else max((prompt.length for prompt in prompts), default=0)
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            hidden = torch.cat([self._run(i, batch, stop) for i in range(len(self._parts))], dim=-1)
            for prompt, rows in zip(batch, hidden, strict=True):
                yield Embedding(rows, prompt.length)
            self.tell(len(batch))

    @torch.inference_mode()
    def _hidden(self, index: int, batch: Sequence[Tokens], stop: int) -> Tensor:
        network = self._networks[index]
        ids = torch.tensor([prompt.ids[index][:stop] for prompt in batch], device=self._device)
        mask = None
        if getattr(network.config, "use_attention_mask", False):
            reach = torch.tensor([prompt.length for prompt in batch], device=self._device)
            mask = (torch.arange(stop, device=self._device) < reach[:, None]).long()
        output = network(ids, attention_mask=mask, output_hidden_states=self._penultimate)
        hidden: Tensor = output.hidden_states[-2] if self._penultimate else output.last_hidden_state
        return hidden

    def _run(self, index: int, batch: Sequence[Tokens], stop: int) -> Tensor:
        """Return ``(len(batch), stop, width)`` float64; a copy, so that it is no tensor of inference mode."""
        return self._hidden(index, batch, stop).double().clone()


def _network(model: Model, part: TextEncoder, device: torch.device) -> Any:
    network = load_component(model, part.component, device, torch.float32)
    if network.config.hidden_size != part.width:
        raise ModelError(f"is {network.config.hidden_size} wide, not {part.width}", where=part.component)
    return network
