"""The learner of attacks that train: the ordinary diffusion loss, AdamW, a shortened gradient.

L = mean ||target - eps_theta(x_t, t, c)||^2 + w * the same of the images of the class     DreamBooth, eq. 2
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from publisher.api.descent import DescentParams
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.text import Text
from publisher.api.families import Anatomy, denoiser_of
from publisher.api.freeze_mask import Frozen
from publisher.api.training import Learner, TrainingData


@dataclass(frozen=True)
class Trainable:
    """The part of a pipeline that an attack trains."""

    weights: tuple[nn.Parameter, ...] = ()
    """Parameters that are trained with weight decay."""
    embeddings: tuple[nn.Parameter, ...] = ()
    """Token embeddings that are trained without weight decay, as most of their rows must stay."""
    text: bool = False
    """Whether training changes how prompts are read: each step then encodes its captions again."""


@dataclass(frozen=True)
class TextSide:
    """A text encoder of a pipeline, with its tokenizer."""

    encoder: Any
    tokenizer: Any


def text_sides(pipeline: Any) -> tuple[TextSide, ...]:
    """Return the text encoders of a pipeline, in the order in which its family names them."""
    return tuple(
        TextSide(getattr(pipeline, part.component), getattr(pipeline, part.tokenizer))
        for part in pipeline.anatomy.text_encoders
    )


def freeze_pipeline(pipeline: Any) -> None:
    """Let no part of the pipeline ask for gradients."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)


def free_parameters(network: nn.Module, frozen: Frozen) -> dict[str, nn.Parameter]:
    """Return the parameters that may be trained, by name. A tensor with frozen rows may be, in its other rows."""
    whole = {name for name, rows in frozen.items() if not rows}
    return {name: parameter for name, parameter in network.named_parameters() if name not in whole}


def frozen_layers(frozen: Frozen) -> frozenset[str]:
    """Return the layers with a frozen weight, in part or in full: no adapter may change what they compute."""
    return frozenset(name.rpartition(".")[0] for name in frozen if not name.endswith(".bias"))


def projections(pipeline: Any, parts: Sequence[str], frozen: Frozen) -> tuple[nn.Parameter, ...]:
    """Return weights and biases of the projections ``parts`` of every cross-attention layer, without what is frozen.

    Raises:
        ModelError: the family of the model has no cross-attention.
    """
    pipeline.anatomy.require(("cross-attention",), "a training of cross-attention")
    wanted = re.compile(rf"\.{re.escape(pipeline.anatomy.cross_attention)}\.to_({'|'.join(parts)})\.")
    free = free_parameters(denoiser_of(pipeline), frozen)
    return tuple(parameter for name, parameter in free.items() if wanted.search(name))


class ShuffledRows:
    """Row numbers of a set in random order: each comes once before one comes again.

    Args:
        count: number of rows, at least 1.
        generator: source of the order.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        if count < 1:
            raise ValueError("there is nothing to learn from")
        self._count, self._generator = count, generator
        self._left: list[int] = []

    def take(self, count: int) -> list[int]:
        """Return the next ``count`` row numbers; some twice if there are fewer."""
        while len(self._left) < count:
            self._left += torch.randperm(self._count, generator=self._generator).tolist()
        taken, self._left = self._left[:count], self._left[count:]
        return taken


class PromptReader:
    """A pipeline that encodes prompts: each one once, if training leaves the encoders as they are.

    Args:
        pipeline: diffusers pipeline whose encoders are used.
        changing: training changes them, so every call encodes again, with gradients.
    """

    def __init__(self, pipeline: Any, *, changing: bool) -> None:
        self._pipeline, self._changing = pipeline, changing
        self._known: dict[str, Text] = {}

    def __call__(self, texts: Sequence[str]) -> Text:
        """Return the texts for a training step."""
        if self._changing:
            return self.read(texts)
        for text in texts:
            if text not in self._known:
                self._known[text] = self.now([text])
        return Text.join([self._known[text] for text in texts])

    @torch.no_grad()
    def now(self, texts: Sequence[str]) -> Text:
        """Encode with the encoders as they are now, without gradients."""
        return self.read(texts)

    def read(self, texts: Sequence[str]) -> Text:
        """Encode as the family of the model does."""
        anatomy: Anatomy = self._pipeline.anatomy
        return anatomy.read_text(self._pipeline, texts)


class DenoisingLearner(Learner):
    """A pipeline that learns images.

    Args:
        params: parameters of the attack.
        pipeline: diffusers pipeline of this trial alone, as the program loaded it.
        data: images and captions.
        generator: source of rows, noise and timesteps, in this order.
        trainable: part of the pipeline that is trained.
        lr: learning rate; None: that of the parameters.
        prior_weight: weight of the loss on images of the class.
    """

    def __init__(
        self,
        params: DescentParams,
        pipeline: Any,
        data: TrainingData,
        generator: torch.Generator,
        trainable: Trainable,
        *,
        lr: float | None = None,
        prior_weight: float = 0.0,
    ) -> None:
        self._data, self._generator, self._clip = data, generator, params.clip
        self._batch, self._prior_weight, self._weighting = params.batch, prior_weight, params.weighting
        self._rows = ShuffledRows(len(data.latents), generator)
        prior = len(data.prior_latents) if prior_weight else 0
        self._prior_rows = ShuffledRows(prior, generator) if prior else None
        self._noising = Noising.of(pipeline)
        self._denoiser = Denoiser.of(pipeline)
        self._texts = PromptReader(pipeline, changing=trainable.text)
        self._trained = [parameter.requires_grad_() for parameter in (*trainable.weights, *trainable.embeddings)]
        groups = [
            {"params": list(trainable.weights), "weight_decay": params.weight_decay},
            {"params": list(trainable.embeddings), "weight_decay": 0.0},
        ]
        used = [group for group in groups if group["params"]]
        self._optimizer = torch.optim.AdamW(used, lr=params.lr if lr is None else lr, fused=True)

    def step(self) -> float:
        """Take one step of the optimizer and return its loss."""
        latents, captions = self._next()
        noise, t = self._noising.sample(latents, self._generator)
        losses = self._noising.loss(self._denoiser, latents, self._texts(captions), noise, t)
        losses = losses * self._noising.weights(t, self._weighting)
        loss = losses[: self._batch].mean()
        if self._prior_rows:
            loss = loss + self._prior_weight * losses[self._batch :].mean()
        value = loss.item()
        _require_finite(value, "loss")
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _require_finite(nn.utils.clip_grad_norm_(self._trained, self._clip).item(), "gradient")
        self._optimizer.step()
        return value

    def encode(self, texts: Sequence[str]) -> Text:
        """Encode prompts as the model reads them now."""
        return self._texts.now(texts)

    def _next(self) -> tuple[Tensor, list[str]]:
        """Return images of the concept and, behind them, as many of the class."""
        rows = self._rows.take(self._batch)
        latents, captions = self._data.latents[rows], [self._data.captions[row] for row in rows]
        if self._prior_rows:
            rows = self._prior_rows.take(self._batch)
            latents = torch.cat([latents, self._data.prior_latents[rows]])
            captions += [self._data.prior_captions[row] for row in rows]
        return latents, captions


def _require_finite(value: float, what: str) -> None:
    if not math.isfinite(value):
        raise ArithmeticError(f"the {what} is {value}: the training has diverged")
