"""Prompts as the denoiser reads them: the model's own tokenizers and encoders, run once and dropped.

SD 1.x and 2.x read the last hidden state of one encoder. SDXL reads the states before the last layer of two encoders
side by side, and a pooled vector of the second through the time embedding. Other families read what their pipeline's
``encode_prompt`` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from publisher.api.families import TextEncoder
from publisher.api.loading import load_component, load_pipeline
from publisher.api.models import Model
from publisher.errors import ModelError, UsageError

BATCH = 32


@dataclass(frozen=True)
class Text:
    """A batch of B texts (c in the paper)."""

    states: Tensor
    """Rows that enter the denoiser, ``(B, n, d)``, n positions."""
    pooled: Tensor | None = None
    """Pooled vectors, ``(B, p)``; None: the family has none."""
    mask: Tensor | None = None
    """Which rows count, ``(B, n)``, 1 or 0; None: all do."""

    @staticmethod
    def join(texts: Sequence[Text]) -> Text:
        """Return one batch, in this order; texts of fewer rows are filled up with rows that their masks leave out."""
        longest = max(text.states.shape[1] for text in texts)
        texts = [text.filled(longest) for text in texts]
        pooled = [text.pooled for text in texts if text.pooled is not None]
        masks = [text.mask for text in texts if text.mask is not None]
        rows = torch.cat([text.states for text in texts])
        return Text(rows, torch.cat(pooled) if pooled else None, torch.cat(masks) if masks else None)

    def filled(self, rows: int) -> Text:
        """Return the texts with zeros behind their rows, which the mask leaves out.

        Args:
            rows: number of rows, with those that are there.

        Raises:
            ValueError: rows are missing, and there is no mask to say so.
        """
        missing = rows - self.states.shape[1]
        if not missing:
            return self
        if self.mask is None:
            raise ValueError("texts of different numbers of rows need masks")
        return Text(F.pad(self.states, (0, 0, 0, missing)), self.pooled, F.pad(self.mask, (0, missing)))

    def to(self, dtype: torch.dtype) -> Text:
        """Return the same rows and vectors in another dtype."""
        return Text(self.states.to(dtype), None if self.pooled is None else self.pooled.to(dtype), self.mask)


def encode(
    model: Model, texts: Iterable[str], device: torch.device, tell: Callable[[int], None] | None = None
) -> dict[str, Text]:
    """Encode every distinct text as a batch of one, in float32; the encoders are dropped afterwards.

    The empty text stands for no prompt: where the pipeline generates with zeros in its place, it is zeros here too.

    Args:
        model: model with the encoders.
        texts: equal ones are encoded once.
        device: device of the encoders.
        tell: function that is told how many more texts an encoder has done: each encoder does all of them.

    Raises:
        UsageError: the pipeline would silently cut a text.
        ModelError: an encoder cannot be loaded, or the model pools text and no encoder gives a pooled vector.
    """
    distinct = list(dict.fromkeys(texts))
    if "clip-text" not in model.anatomy.capabilities:
        return _by_pipeline(model, distinct, device, tell)
    states, pooled = [], None
    for part in model.anatomy.text_encoders:
        hidden, vector = _run(model, part, distinct, device, tell)
        states.append(hidden)
        pooled = vector if vector is not None else pooled
    if not model.anatomy.pooled_text:
        pooled = None
    elif pooled is None:
        raise ModelError("no text encoder gives the pooled vector that the denoiser reads")
    joined = torch.cat(states, dim=-1)
    if "" in distinct and model.anatomy.empty_is_zeros:
        for read in (joined, pooled):
            if read is not None:
                read[distinct.index("")] = 0
    return {
        text: Text(joined[i : i + 1], None if pooled is None else pooled[i : i + 1]) for i, text in enumerate(distinct)
    }


def _by_pipeline(
    model: Model, texts: Sequence[str], device: torch.device, tell: Callable[[int], None] | None
) -> dict[str, Text]:
    """Return each text as the pipeline encodes it; its denoiser and its autoencoder are not loaded."""
    anatomy = model.anatomy
    pipeline = load_pipeline(model.folder, anatomy, torch.float32, without=(anatomy.denoiser, "vae")).to(device)
    found = {}
    with torch.no_grad():
        for text in texts:
            found[text] = anatomy.read_text(pipeline, [text])
            if tell is not None:
                tell(len(anatomy.text_encoders))
    return found


def _run(
    model: Model, part: TextEncoder, texts: Sequence[str], device: torch.device, tell: Callable[[int], None] | None
) -> tuple[Tensor, Tensor | None]:
    """Return ``(B, n, width)`` and, of an encoder with a projection, ``(B, p)``."""
    tokenizer = load_component(model, part.tokenizer, device, torch.float32)
    network = load_component(model, part.component, device, torch.float32)
    positions = min(int(tokenizer.model_max_length), int(network.config.max_position_embeddings))
    for text in texts:
        _require_fit(tokenizer, text, positions)
    states, pooled = [], []
    for start in range(0, len(texts), BATCH):
        tokens = tokenizer(
            list(texts[start : start + BATCH]), padding="max_length", max_length=positions, return_tensors="pt"
        ).to(device)
        mask = tokens.attention_mask if getattr(network.config, "use_attention_mask", False) else None
        with torch.no_grad():
            output = network(tokens.input_ids, attention_mask=mask, output_hidden_states=model.anatomy.penultimate)
        states.append(output.hidden_states[-2] if model.anatomy.penultimate else output.last_hidden_state)
        if hasattr(output, "text_embeds"):
            pooled.append(output.text_embeds)
        if tell is not None:
            tell(len(tokens.input_ids))
    return torch.cat(states), torch.cat(pooled) if pooled else None


def _require_fit(tokenizer: Any, text: str, positions: int) -> None:
    count = len(tokenizer(text, verbose=False).input_ids)
    if count > positions:
        raise UsageError(
            f"the prompt {text!r} has {count - 2} tokens, the model reads {positions - 2}",
            hint="Shorten it: the rest would be cut off without a word.",
        )
