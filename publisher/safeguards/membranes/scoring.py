"""From the prompts of a pipeline's call to permeabilities: what its encoders made of them, and the tokens they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from publisher.api import denoiser_of
from publisher.api.membranes import MembraneEntry, Transport
from publisher.safeguards.membranes.prediction import PromptPredictor, directions, likeness
from publisher.safeguards.membranes.serving import TEXTS
from publisher.safeguards.membranes.transport import cosine, flatten, overlap, permeability, token_sets, word_sets

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

BATCH = 32
"""Texts that are encoded together at most."""


@dataclass(frozen=True)
class Encoding:
    """Way in which a call has its prompts encoded; the concepts are encoded in the same way."""

    clip_skip: int | None = None
    lora_scale: float | None = None

    def states(self, pipeline: DiffusionPipeline, texts: Sequence[str]) -> Tensor:
        """Return the text states of each text, as the denoiser would get them, ``(n, tokens, width)``."""
        parts = [
            _plain(pipeline).encode_prompt(
                pipeline,
                prompt=list(texts[start : start + BATCH]),
                device=pipeline._execution_device,  # noqa: SLF001 - where its own __call__ encodes
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
                lora_scale=self.lora_scale,
                clip_skip=self.clip_skip,
            )[0]
            for start in range(0, len(texts), BATCH)
        ]
        return torch.cat(parts)


class PromptScorer:
    """The rule of an attachment; its concepts are encoded once for each encoding that calls use.

    Args:
        pipeline: that is attached to.
        entries: of the membranes.
        transport: the rule.
        predictor: says what prompts are about to generate, with the membranes shut; None: words alone open.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        entries: Sequence[MembraneEntry],
        transport: Transport,
        predictor: PromptPredictor | None = None,
    ) -> None:
        self._entries = tuple(entries)
        self._transport = transport
        tokenizer = tokenizer_of(pipeline)
        self._words = [word_sets(tokenizer, entry.words, transport.stop_words) for entry in self._entries]
        self._strengths = torch.tensor([entry.strength for entry in self._entries])
        self._concepts: dict[object, list[Tensor]] = {}
        self._predictor = predictor
        self._predicted: dict[object, tuple[Tensor, list[Tensor]]] = {}

    def gamma(
        self, pipeline: DiffusionPipeline, prompts: Sequence[Sequence[str]], states: Tensor, encoding: Encoding
    ) -> Tensor:
        """Return the permeability of each membrane for each prompt.

        Args:
            pipeline: that encoded them.
            prompts: n of them, each as the texts that its encoders read (SDXL: ``prompt`` and ``prompt_2``).
            states: ``(n, tokens, width)`` that the denoiser will get.
            encoding: how they were made.

        Returns:
            ``(n, k)`` float32 on the CPU.
        """
        scores = []
        if self._transport.score != "overlap":
            read = flatten(states)
            concepts = self._states(pipeline, encoding)
            scores.append(torch.stack([cosine(read, concept) for concept in concepts], dim=1))
        if self._transport.score != "cosine":
            tokens = prompt_tokens(pipeline, prompts)
            scores.append(torch.stack([overlap(tokens, words) for words in self._words], dim=1))
        score = torch.stack(scores).amax(dim=0)
        like = self._likeness(pipeline, states, encoding, self._predictor) if self._predictor else None
        return permeability(score, self._transport, self._strengths, like)

    def _likeness(
        self, pipeline: DiffusionPipeline, states: Tensor, encoding: Encoding, predictor: PromptPredictor
    ) -> Tensor:
        """Return how much what each prompt is about to generate is like each concept, ``(n, k)``."""
        parts = [getattr(pipeline, "text_encoder", None), denoiser_of(pipeline)]
        key = (encoding, *((id(one), one.dtype) for one in parts if one is not None))
        changing = any(getattr(one, "peft_config", None) for one in parts)
        found = None if changing else self._predicted.get(key)
        if found is None:
            texts = [[""], *(list(entry.texts) for entry in self._entries)]
            empty, *concepts = [predictor.predictions(encoding.states(pipeline, some)) for some in texts]
            found = empty, [directions(concept, empty) for concept in concepts]
            if not changing:
                self._predicted[key] = found
        empty, known = found
        read = directions(predictor.predictions(states), empty)
        return torch.stack([likeness(read, concept) for concept in known], dim=1)

    def _states(self, pipeline: DiffusionPipeline, encoding: Encoding) -> list[Tensor]:
        """Encode each concept's texts; again for each call while LoRA may change the encoders between calls."""
        encoders = [getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2")]
        key = (encoding, *((id(one), one.dtype) for one in encoders if one is not None))
        changing = any(getattr(one, "peft_config", None) for one in encoders)
        found = None if changing else self._concepts.get(key)
        if found is None:
            with torch.inference_mode(mode=False), torch.no_grad():
                found = [flatten(encoding.states(pipeline, entry.texts)) for entry in self._entries]
            if not changing:
                self._concepts[key] = found
        return found


def prompt_tokens(pipeline: DiffusionPipeline, prompts: Sequence[Sequence[str]]) -> list[frozenset[int]]:
    """Return token ids of all texts of each prompt, textual inversions written out as the pipeline does."""
    tokenizer = tokenizer_of(pipeline)
    convert = getattr(pipeline, "maybe_convert_prompt", lambda texts, _tokenizer: texts)
    return [frozenset[int]().union(*token_sets(tokenizer, convert(list(texts), tokenizer))) for texts in prompts]


def prompts_of(arguments: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the texts that a call of ``encode_prompt`` has encoded, for each prompt."""
    columns = [[text] if isinstance(text, str) else list(text) for text in _texts(arguments)]
    return [tuple(dict.fromkeys(row)) for row in zip(*columns, strict=True)]


def _texts(arguments: Mapping[str, Any]) -> list[Any]:
    return [arguments[name] for name in TEXTS if arguments.get(name)]


def tokenizer_of(pipeline: DiffusionPipeline) -> Any:
    """Return the first tokenizer that a pipeline has; those of SDXL share a vocabulary."""
    return getattr(pipeline, "tokenizer", None) or pipeline.tokenizer_2


def _plain(pipeline: DiffusionPipeline) -> Any:
    """Return the pipeline's class without our part."""
    return getattr(type(pipeline), "plain_class", type(pipeline))
