"""From prompts to permeabilities where text is mostly padding, or read by encoders with vocabularies of their own.

A T5 reads 256 or 512 rows, of which a prompt fills ten: over all rows any two prompts are nearly alike. So the cosine
is over rows of content alone (padding is 0), and without the start token of a causal encoder, which is the same for
all texts. The overlap is counted in every vocabulary of the pipeline, with a word in all the forms that it can have in
a prompt, and of the whole prompt: what one encoder cuts off, another one may read. The largest share counts.

Prompts and concepts are both read as the family reads a text (:meth:`publisher.api.Anatomy.read_text`), whatever
options a call has. Of a prompt with several texts each is read by itself, and the one that opens furthest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from publisher.api import Anatomy
from publisher.api.membranes import MembraneEntry, Transport
from publisher.safeguards.membranes.transport import cosine, flatten, overlap, permeability, word_forms

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from publisher.api.diffusion.text import Text

BATCH = 32
"""Texts that are encoded together at most."""


class ContentScorer:
    """The rule of an attachment to a transformer; its concepts are encoded once."""

    def __init__(
        self, pipeline: DiffusionPipeline, anatomy: Anatomy, entries: Sequence[MembraneEntry], transport: Transport
    ) -> None:
        self._anatomy, self._entries, self._transport = anatomy, tuple(entries), transport
        self._strengths = torch.tensor([entry.strength for entry in self._entries])
        self._words = {
            name: [content_words(getattr(pipeline, name), entry.words, transport.stop_words) for entry in self._entries]
            for name in _tokenizers(anatomy)
        }
        self._concepts: dict[object, list[Tensor]] = {}

    def gamma(self, pipeline: DiffusionPipeline, prompts: Sequence[Sequence[str]]) -> Tensor:
        """Return the permeability of each membrane for each prompt.

        Args:
            pipeline: that reads them; inside nobody listens to what it encodes.
            prompts: n of them, each as the texts that its encoders read.

        Returns:
            ``(n, k)`` float32 on the CPU.
        """
        texts = [text for prompt in prompts for text in prompt]
        scores = []
        if self._transport.score != "overlap":
            read, concepts = self._rows(pipeline, texts), self._states(pipeline)
            scores.append(torch.stack([cosine(*_as_wide(read, concept)) for concept in concepts], dim=1))
        if self._transport.score != "cosine":
            scores += [self._overlap(pipeline, name, texts) for name in self._words]
        best = torch.split(torch.stack(scores).amax(dim=0), [len(prompt) for prompt in prompts])
        return permeability(torch.stack([rows.amax(dim=0) for rows in best]), self._transport, self._strengths)

    def _overlap(self, pipeline: DiffusionPipeline, name: str, texts: Sequence[str]) -> Tensor:
        tokenizer: Any = getattr(pipeline, name)
        convert = getattr(pipeline, "maybe_convert_prompt", lambda texts, _tokenizer: texts)
        tokens = _tokens(tokenizer, convert(list(texts), tokenizer))
        return torch.stack([overlap(tokens, words) for words in self._words[name]], dim=1)

    def _states(self, pipeline: DiffusionPipeline) -> list[Tensor]:
        """Encode each concept's texts; again for each call while LoRA may change the encoders between calls."""
        encoders = [getattr(pipeline, part.component, None) for part in self._anatomy.text_encoders]
        key = tuple((id(one), one.dtype) for one in encoders if one is not None)
        changing = any(getattr(one, "peft_config", None) for one in encoders)
        found = None if changing else self._concepts.get(key)
        if found is None:
            found = [self._rows(pipeline, entry.texts) for entry in self._entries]
            if not changing:
                self._concepts[key] = found
        return found

    def _rows(self, pipeline: DiffusionPipeline, texts: Sequence[str]) -> Tensor:
        """Return the rows of content of each text as unit vectors, ``(n, rows * width)``; the other rows are 0."""
        parts = []
        with torch.inference_mode(mode=False), torch.no_grad():
            for start in range(0, len(texts), BATCH):
                some = list(texts[start : start + BATCH])
                text = self._anatomy.read_text(pipeline, some)
                mask = content_mask(self._anatomy, pipeline, some, text)
                parts.append(flatten(text.states.cpu() * mask[..., None]))
        width = max(part.shape[1] for part in parts)
        return torch.cat([F.pad(part, (0, width - part.shape[1])) for part in parts])


def content_mask(anatomy: Anatomy, pipeline: Any, texts: Sequence[str], read: Text) -> Tensor:
    """Return which rows say what a text is about, ``(n, rows)`` of 0 and 1 on the CPU.

    Args:
        anatomy: of the model.
        pipeline: with its tokenizers.
        texts: n of them.
        read: the same texts as the family reads them. Its own mask, where there is one, says all.
    """
    count, rows = read.states.shape[:2]
    if read.mask is not None:
        return read.mask.float().cpu()
    if not anatomy.text_blocks:
        return torch.ones(count, rows)
    mask, begin = torch.zeros(count, rows), 0
    parts = {part.component: part for part in anatomy.text_encoders}
    for block in anatomy.text_blocks:
        tokenizer: Any = getattr(pipeline, parts[block.encoders[0]].tokenizer)
        for i, ids in enumerate(tokenizer(list(texts), verbose=False).input_ids):
            start = int(len(ids) > 1 and ids[0] in tokenizer.all_special_ids)
            mask[i, begin + start : begin + min(len(ids), block.rows)] = 1
        begin += block.rows
    return mask


def _as_wide(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with as many numbers in a row as the wider one has, 0 behind what they have."""
    width = max(first.shape[1], second.shape[1])
    return F.pad(first, (0, width - first.shape[1])), F.pad(second, (0, width - second.shape[1]))


def _tokenizers(anatomy: Anatomy) -> list[str]:
    return list(dict.fromkeys(part.tokenizer for part in anatomy.text_encoders))


def _tokens(tokenizer: Any, texts: Sequence[str]) -> list[frozenset[int]]:
    """Return the token ids of each text, all of it, without special tokens but the one for what is unknown."""
    special = frozenset(tokenizer.all_special_ids) - _unknown(tokenizer)
    read = tokenizer(list(texts), add_special_tokens=False, verbose=False).input_ids
    return [frozenset(ids) - special for ids in read]


def content_words(tokenizer: Any, words: Sequence[str], stop_words: Sequence[str]) -> list[frozenset[int]]:
    """Return the token ids of every form of each word, without those of stop words unless there are no others.

    A form that the vocabulary cannot write is left out, unless it can write none: then what is unknown opens.
    """
    stops = _tokens(tokenizer, [form for word in stop_words for form in word_forms(word)]) if stop_words else []
    dropped = frozenset[int]().union(*stops) - _unknown(tokenizer)
    found = []
    for word in words:
        if word.strip():
            forms = [ids - dropped or ids for ids in _tokens(tokenizer, word_forms(word))]
            found += [ids for ids in forms if not ids & _unknown(tokenizer)] or forms
    return found


def _unknown(tokenizer: Any) -> frozenset[int]:
    """Return the id of the token for what the vocabulary cannot write, where it has one of its own."""
    known = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    found = tokenizer.unk_token_id
    return frozenset() if found is None or found in known else frozenset((found,))
