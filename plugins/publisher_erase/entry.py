"""Texts of a model that they enter by one linear map, before all blocks: read by the pipeline itself, and paired.

With ``h0 = E c + b`` the edit ``E' = E T`` gives ``E T c + b``: the edited network reads a text c as the original one
reads rows ``T c``, at every noise level, in every block and for every image. The bias b stays as it is and takes no
part in the edit. A pooled vector that enters beside the rows gets a map of its own, ``L' = L T_p``.

Rows come from the pipeline's own ``encode_prompt``, in the dtype that the model is run in. They stand in blocks
(:class:`publisher.api.TextBlock`): SD3 has its two CLIPs side by side, and T5 behind them in the same space.

Which rows count: every word, the end token, and the mean of the padding with the padding's count as its weight. T5
reads in both directions and without a mask, so words before the concept and all padding carry it too. A causal language
model has no end token, but a template whose end stands behind the prompt: each of its rows counts like an end token.
Rows that a mask leaves out and nothing reads do not count. Where a norm comes before the map, c is what it returns.

A concept's row is paired with a target's by the tokens: equal ones from the start, equal ones from the end, and between
them one after the other. The concept's last word becomes the target's last; those for which nothing is left become it
too. Where the target has no word there, they become the row before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from publisher.api import Model, ModelError, UsageError
from publisher.api.loading import load_pipeline
from publisher_erase.data import Embedding, stack_retained
from publisher_erase.plan import Tokens, TokenSelection
from publisher_erase.uce import Rows

Ids = tuple[tuple[int, ...], ...]
BATCH = 8
"""Number of prompts that the pipeline reads at once."""


@dataclass(frozen=True)
class EntryText:
    """One prompt as the denoiser gets it."""

    blocks: tuple[Embedding, ...]
    """Rows of each block, float64; ``length`` counts the positions without padding."""
    pooled: Tensor | None
    """Pooled vector ``(p,)``, float64; None: the family has none."""

    def condensed(self) -> EntryText:
        """Return the same with the mean of each block's padding in its place."""
        return EntryText(tuple(block.condensed() for block in self.blocks), self.pooled)


class PipelineReader:
    """The text encoders of a pipeline, loaded without its denoiser.

    Args:
        model: input of the step.
        device: where the encoders run.
        dtype: of the encoders, as the model is run in.
    """

    def __init__(self, model: Model, device: torch.device, dtype: torch.dtype) -> None:
        self._anatomy, self._model = model.anatomy, model
        without = (self._anatomy.denoiser, "vae")
        self.pipeline = load_pipeline(model.folder, self._anatomy, dtype, without=without).to(device)
        """The pipeline, without its denoiser and its autoencoder."""
        parts = {part.component: part for part in self._anatomy.text_encoders}
        self._blocks = [[parts[name] for name in block.encoders] for block in self._anatomy.text_blocks]
        within = {name for block in self._anatomy.text_blocks for name in block.encoders}
        self._beside = [part for name, part in parts.items() if name not in within]  # of a pooled vector alone
        self.causal = tuple(block[0].causal for block in self._blocks)
        """Of each block, whether a row says nothing of the words behind it."""

    def tokens(self, text: str) -> Tokens:
        """Tokenise one prompt, without padding.

        Raises:
            UsageError: the pipeline would silently cut it.
            ModelError: tokenizers whose rows stand side by side disagree on its length.
        """
        ids: list[tuple[int, ...]] = []
        read = self._ids(text)
        for block, layout in zip(self._blocks, self._anatomy.text_blocks, strict=True):
            found = [read[part.component] for part in block]
            if len({len(one) for one in found}) != 1:
                raise ModelError(f"the tokenizers split the prompt {text!r} into different numbers of tokens")
            if len(found[0]) > layout.rows:
                raise UsageError(
                    f"the prompt {text!r} has {len(found[0])} tokens, {layout.encoders[0]} reads {layout.rows}",
                    hint="Shorten it: the rest would be cut off without a word.",
                )
            ids += found
        for part in self._beside:
            longest = getattr(self.pipeline, part.tokenizer).model_max_length
            if len(read[part.component]) > longest:
                raise UsageError(
                    f"the prompt {text!r} is longer than the {longest} tokens of {part.component}",
                    hint="Shorten it: the rest would be cut off without a word.",
                )
        return Tokens(text, tuple(ids), len(ids[0]), self._framing)

    def read(self, prompts: Sequence[Tokens], tell: Callable[[int], None] = lambda _: None) -> Iterator[EntryText]:
        """Read prompts in their order, a batch at a time; ``tell`` is told how many more are read.

        Raises:
            ModelError: the pipeline returns other rows than the family says.
        """
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            with torch.no_grad():
                text = self._anatomy.read_text(self.pipeline, [prompt.text for prompt in batch])
            pooled = [None] * len(batch) if text.pooled is None else list(text.pooled.double())
            for number, (prompt, vector) in enumerate(zip(batch, pooled, strict=True)):
                mask = None if text.mask is None else text.mask[number].bool()
                yield EntryText(self._split(prompt, text.states[number].double(), mask), vector)
            tell(len(batch))

    def ids_of_blocks(self, concept: Tokens, target: Tokens) -> list[tuple[Sequence[int], Sequence[int]]]:
        """Return the token numbers of two prompts, block by block: those of each block's first tokenizer."""
        firsts = [sum(len(block) for block in self._blocks[:number]) for number in range(len(self._blocks))]
        return [(concept.ids[first], target.ids[first]) for first in firsts]

    def _split(self, prompt: Tokens, rows: Tensor, mask: Tensor | None) -> tuple[Embedding, ...]:
        """Return the rows of each block, as the denoiser's door reads them, without those that are never read."""
        found, first, encoder = [], 0, 0
        for parts, block in zip(self._blocks, self._anatomy.text_blocks, strict=True):
            part, length = rows[first : first + block.rows], len(prompt.ids[encoder])
            first, encoder = first + len(part), encoder + len(parts)
            if block.masked and mask is not None:
                part = part[mask[first - len(part) : first]]
            wanted = length if block.masked else block.rows
            if len(part) != wanted:
                raise self._other_rows(len(part), wanted)
            found.append(Embedding(self._anatomy.enter(part, self._weight), length))
        if bool(rows[first:].any()):
            raise self._other_rows(len(rows), first)
        return tuple(found)

    def _other_rows(self, found: int, known: int) -> ModelError:
        return ModelError(f"the pipeline reads a text as {found} rows, its family {self._anatomy.family} knows {known}")

    def _ids(self, text: str) -> dict[str, tuple[int, ...]]:
        read = self._anatomy.read_ids(self.pipeline, text)
        return dict(zip((part.component for part in self._anatomy.text_encoders), read, strict=True))

    @cached_property
    def _framing(self) -> int:
        """The number of positions of the empty text, in the first block."""
        return len(self._ids("")[self._blocks[0][0].component])

    def _weight(self, name: str) -> Tensor:
        return self._model.read(self._anatomy.denoiser, name).to(self.pipeline.device, torch.float64)


def align(concept: Sequence[int], target: Sequence[int]) -> tuple[list[int], int]:
    """Return the target's position for each of the concept's, and how many equal tokens both begin with.

    Args:
        concept: token numbers, without padding.
        target: token numbers, without padding.
    """
    shorter = min(len(concept), len(target))
    first = next((i for i in range(shorter) if concept[i] != target[i]), shorter)
    rest = shorter - first
    same = next((i for i in range(rest) if concept[-1 - i] != target[-1 - i]), rest)
    end, stop = len(concept) - same, len(target) - same
    last = max(stop - 1, 0)  # of the target's words in between; where there is none, the row before them
    middle = [min(i, last) for i in range(first, end - 1)] + [last] * (end > first)
    return [*range(first), *middle, *range(stop, len(target))], first


def pair_block(
    concept: Embedding, target: Embedding, ids: tuple[Sequence[int], Sequence[int]], *, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows to take away, rows they become, and weights: ``(m, d)``, ``(m, d)``, ``(m,)``.

    Args:
        concept: rows of one block.
        target: rows of the same block.
        ids: token numbers of the two.
        causal: rows before the first difference are equal, and are left out.
    """
    places, first = align(*ids)
    start = first if causal else 0
    old, new = [concept.hidden[start : concept.length]], [target.hidden[places[start:]]]
    weights = [old[0].new_ones(len(old[0]))]
    if len(concept.padding) and len(target.padding):
        old.append(concept.padding.mean(0, keepdim=True))
        new.append(target.padding.mean(0, keepdim=True))
        weights.append(weights[0].new_tensor([float(len(concept.padding) * concept.copies)]))
    return torch.cat(old), torch.cat(new), torch.cat(weights)


def entry_rows(
    tokens: TokenSelection,
    reader: PipelineReader,
    counted: Callable[[int, str], Callable[[int], None]] = lambda *_: lambda _: None,
) -> tuple[Rows, Rows | None]:
    """Return the rows of the edit of the text entry, and those of the pooled vector's if there is one.

    As for cross-attention, prompts of one concept count as a mean, kept prompts as a mean, concepts as a sum. One batch
    of texts is held with all its padding: a text of FLUX.1 has 17 MB of rows, and less than 1 MB without.
    """
    distinct = list({p.ids: p for concept in tokens.concepts for pair in concept for p in pair}.values())
    tell = counted(len(distinct) + len(tokens.keep), "prompts embedded")
    texts = (text.condensed() for text in reader.read(distinct, tell))
    read = dict(zip((prompt.ids for prompt in distinct), texts, strict=True))
    kept: list[Tensor] = []

    def kept_blocks() -> Iterator[Embedding]:
        for text in reader.read(tokens.keep, tell):
            kept.extend([] if text.pooled is None else [text.pooled])
            yield from text.blocks

    retain, v = stack_retained(kept_blocks(), "content")
    pairs = [(c, g, 1 / len(concept)) for concept in tokens.concepts for c, g in concept]
    paired = []
    for c, g, share in pairs:
        blocks = zip(read[c.ids].blocks, read[g.ids].blocks, reader.ids_of_blocks(c, g), reader.causal, strict=True)
        found = [pair_block(one, other, ids, causal=causal) for one, other, ids, causal in blocks]
        paired += [(old, new, w * share) for old, new, w in found]
    old, new, w = (torch.cat(parts) for parts in zip(*paired, strict=True))
    rows = Rows(old, new, w, retain, v * len(reader.causal))  # v counts blocks: a text is one of each
    return rows, _pooled_rows(pairs, read, kept)


def _pooled_rows(
    pairs: Sequence[tuple[Tokens, Tokens, float]], read: Mapping[Ids, EntryText], kept: Sequence[Tensor]
) -> Rows | None:
    if not kept:
        return None
    sides = ([read[c.ids].pooled for c, _, _ in pairs], [read[g.ids].pooled for _, g, _ in pairs])
    old, new = (torch.stack([one for one in side if one is not None]) for side in sides)
    w = old.new_tensor([share for _, _, share in pairs])
    return Rows(old, new, w, torch.stack(list(kept)), w.new_full((len(kept),), 1 / len(kept)))
