"""How every attack trains: the ordinary diffusion loss, AdamW, a shortened gradient.

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

from publisher.api import Learner, TrainingData
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.text import Text
from publisher.api.freeze_mask import Frozen
from publisher.builtin.training.params import DescentParams


@dataclass(frozen=True)
class Trained:
    """What an attack trains of a pipeline."""

    weights: tuple[nn.Parameter, ...] = ()
    """With weight decay."""
    embeddings: tuple[nn.Parameter, ...] = ()
    """Token embeddings, of which most rows must stay: without."""
    text: bool = False
    """Prompts do not stay what they were, so that every step has to read its captions anew."""


@dataclass(frozen=True)
class TextSide:
    """A text encoder of a pipeline, with its tokenizer."""

    encoder: Any
    tokenizer: Any


def text_sides(pipeline: Any) -> tuple[TextSide, ...]:
    """One, or SDXL's two."""
    found = (
        (getattr(pipeline, f"text_encoder{n}", None), getattr(pipeline, f"tokenizer{n}", None)) for n in ("", "_2")
    )
    return tuple(TextSide(encoder, tokenizer) for encoder, tokenizer in found if encoder is not None)


def freeze(pipeline: Any) -> None:
    """No part of the pipeline asks for gradients."""
    for part in pipeline.components.values():
        if isinstance(part, nn.Module):
            part.requires_grad_(False)


def free(network: nn.Module, frozen: Frozen) -> dict[str, nn.Parameter]:
    """What of a denoiser may be trained, by name; a tensor of which rows are frozen may, in its other rows."""
    whole = {name for name, rows in frozen.items() if not rows}
    return {name: parameter for name, parameter in network.named_parameters() if name not in whole}


def frozen_layers(frozen: Frozen) -> frozenset[str]:
    """Layers with a frozen weight, in part or in full: what they compute stays as it is, so no adapter sits on them."""
    return frozenset(name.rpartition(".")[0] for name in frozen if not name.endswith(".bias"))


def cross_attention(network: nn.Module, parts: Sequence[str], frozen: Frozen) -> tuple[nn.Parameter, ...]:
    """Weights and biases of the projections ``parts`` of every cross-attention layer, without what is frozen."""
    wanted = re.compile(rf"\.attn2\.to_({'|'.join(parts)})\.")
    return tuple(parameter for name, parameter in free(network, frozen).items() if wanted.search(name))


class Rows:
    """Rows of a set, each once before one comes again.

    Args:
        count: rows of the set, at least 1.
        generator: of the order.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        if count < 1:
            raise ValueError("there is nothing to learn from")
        self._count, self._generator = count, generator
        self._left: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next ``count``; more than there are: some twice."""
        while len(self._left) < count:
            self._left += torch.randperm(self._count, generator=self._generator).tolist()
        taken, self._left = self._left[:count], self._left[count:]
        return taken


class Texts:
    """Prompts as a pipeline reads them: each one once, if they stay what they are.

    Args:
        pipeline: reads them.
        changing: they do not stay: read anew, with gradients.
    """

    def __init__(self, pipeline: Any, *, changing: bool) -> None:
        self._pipeline, self._changing = pipeline, changing
        self._known: dict[str, Text] = {}

    def __call__(self, texts: Sequence[str]) -> Text:
        """For a training step."""
        if self._changing:
            return self.read(texts)
        for text in texts:
            if text not in self._known:
                self._known[text] = self.now([text])
        return Text.join([self._known[text] for text in texts])

    @torch.no_grad()
    def now(self, texts: Sequence[str]) -> Text:
        """As the model reads them now, without gradients."""
        return self.read(texts)

    def read(self, texts: Sequence[str]) -> Text:
        """By the pipeline's own ``encode_prompt``: states, and SDXL's pooled vector as the third of four."""
        found = self._pipeline.encode_prompt(
            list(texts), device=self._pipeline.unet.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return Text(found[0].float(), found[2].float() if len(found) == 4 else None)


class DenoisingLearner(Learner):
    """A pipeline that learns images.

    Args:
        params: of the attack.
        pipeline: of this trial alone.
        data: images and captions.
        generator: of rows, noise and timesteps, in this order.
        trained: what of the pipeline.
        prior_weight: of the loss on images of the class.
        scaled: the learning rate is that of one image.
    """

    def __init__(
        self,
        params: DescentParams,
        pipeline: Any,
        data: TrainingData,
        generator: torch.Generator,
        trained: Trained,
        *,
        prior_weight: float = 0.0,
        scaled: bool = False,
    ) -> None:
        self._data, self._generator, self._clip = data, generator, params.clip
        self._batch, self._prior_weight = params.batch, prior_weight
        self._rows = Rows(len(data.latents), generator)
        prior = len(data.prior_latents) if prior_weight else 0
        self._prior_rows = Rows(prior, generator) if prior else None
        self._noising = Noising.of(pipeline)
        self._denoiser = Denoiser(pipeline.unet, pipeline.vae_scale_factor)
        self._texts = Texts(pipeline, changing=trained.text)
        self._trained = [parameter.requires_grad_() for parameter in (*trained.weights, *trained.embeddings)]
        groups = [
            {"params": list(trained.weights), "weight_decay": params.weight_decay},
            {"params": list(trained.embeddings), "weight_decay": 0.0},
        ]
        images = params.batch * (2 if prior else 1)
        lr = params.lr * (images if scaled else 1)
        self._optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=True)

    def step(self) -> float:
        """One optimizer step; its loss."""
        latents, captions = self._next()
        noise, t = self._noising.sample(latents, self._generator)
        losses = self._noising.loss(self._denoiser, latents, self._texts(captions), noise, t)
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
        """Prompts as the model reads them now."""
        return self._texts.now(texts)

    def _next(self) -> tuple[Tensor, list[str]]:
        """Images of the concept and, behind them, as many of the class."""
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
