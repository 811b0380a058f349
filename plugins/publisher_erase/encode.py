"""Prompts to embeddings, as the pipeline itself makes them: its tokenizers, its encoders, the layer that it reads.

The encoders are the only networks that the step loads. Each distinct sequence of tokens is encoded once, in batches, in
float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from publisher.api import Model, ModelError, TextEncoder, UsageError
from publisher.api.loading import load_component
from publisher_erase.prompts import Tokens
from publisher_erase.text import Embedding

BATCH = 32


class Encoders:
    """All text encoders of a model, ready to run.

    Raises:
        ModelError: an encoder is of another class, or its width is not what the denoiser expects.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.tell: Callable[[int], None] = lambda _: None
        """Is told how many more prompts are embedded."""
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
            prompts: from :meth:`tokens`.
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
        """``(len(batch), stop, width)`` float64; a copy, so that it is no tensor of inference mode."""
        return self._hidden(index, batch, stop).double().clone()


def _network(model: Model, part: TextEncoder, device: torch.device) -> Any:
    network = load_component(model, part.component, device, torch.float32)
    if network.config.hidden_size != part.width:
        raise ModelError(f"is {network.config.hidden_size} wide, not {part.width}", where=part.component)
    return network
