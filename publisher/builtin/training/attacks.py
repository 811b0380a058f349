"""Attacks that train: each says what it trains, all are trained by :mod:`publisher.builtin.training.learning`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from publisher.api import Learner, TrainingAttack, TrainingData, UsageError
from publisher.builtin.training.params import (
    CrossAttentionParams,
    CustomDiffusionParams,
    DescentParams,
    DreamBoothLoraParams,
    DreamBoothParams,
    LoraParams,
    PriorParams,
    TextualInversionParams,
    TokenParams,
)

if TYPE_CHECKING:
    import torch

    from publisher.builtin.training.learning import Trained

D = TypeVar("D", bound=DescentParams)
W = TypeVar("W", bound=TokenParams)


@dataclass(frozen=True)
class Start(Generic[D]):
    """What a trial begins with."""

    params: D
    pipeline: Any
    """Frozen."""
    data: TrainingData
    generator: torch.Generator


class _Descent(TrainingAttack[D], ABC):
    """Gradient descent on some weights of the pipeline."""

    version = "1"

    def prior_images(self, params: D) -> int:
        """As many as the parameters say, where they speak of a prior."""
        return params.prior_count if isinstance(params, PriorParams) else 0

    def learner(self, params: D, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        """Begin a trial.

        Raises:
            PrerequisiteError: the attack needs peft, which is not installed.
            UsageError: a tokenizer of the pipeline already knows the token that was to be new, or all that the attack
                trains is frozen.
            ValueError: the training data has no image.
        """
        from publisher.builtin.training.learning import DenoisingLearner, freeze

        freeze(pipeline)
        trained = self.choose(Start(params, pipeline, data, generator))
        if not trained.weights and not trained.embeddings:
            raise UsageError(f"all that the attack {self.name!r} trains is frozen", hint="Freeze less.")
        prior_weight = params.prior_weight if isinstance(params, PriorParams) else 0.0
        scaled = isinstance(params, TokenParams) and params.scale_lr
        return DenoisingLearner(params, pipeline, data, generator, trained, prior_weight=prior_weight, scaled=scaled)

    @abstractmethod
    def choose(self, start: Start[D]) -> Trained:
        """Make ready what is trained: nothing of the pipeline asks for gradients yet."""


class FullFinetune(_Descent[DescentParams]):
    """Train the whole denoiser."""

    name = "full-finetune"
    summary = "fine-tune the whole denoiser"

    def choose(self, start: Start[DescentParams]) -> Trained:
        """Every weight of the denoiser that is not frozen."""
        from publisher.builtin.training.learning import Trained, free

        return Trained(tuple(free(start.pipeline.unet, start.data.frozen).values()))


class CrossAttention(_Descent[CrossAttentionParams]):
    """Train cross-attention alone."""

    name = "cross-attention"
    summary = "fine-tune the denoiser's cross-attention"

    def choose(self, start: Start[CrossAttentionParams]) -> Trained:
        """The chosen projections."""
        from publisher.builtin.training.learning import Trained, cross_attention

        return Trained(cross_attention(start.pipeline.unet, start.params.parts, start.data.frozen))


class Lora(_Descent[LoraParams]):
    """Train low-rank adapters on all attention layers."""

    name = "lora"
    summary = "train LoRA adapters on the denoiser's attention"

    def choose(self, start: Start[LoraParams]) -> Trained:
        """The adapters."""
        return _with_adapters(start, start.params.rank, conv=start.params.conv)


class DreamBooth(_Descent[DreamBoothParams]):
    """Train the whole denoiser, with images of the class beside."""

    name = "dreambooth"
    summary = "bind a rare token to the images, keeping the class (DreamBooth)"

    def choose(self, start: Start[DreamBoothParams]) -> Trained:
        """Every weight of the denoiser, and of the text encoders if asked for."""
        from publisher.builtin.training.learning import Trained, free, text_sides

        weights = tuple(free(start.pipeline.unet, start.data.frozen).values())
        if start.params.text_encoder:
            weights += tuple(weight for side in text_sides(start.pipeline) for weight in side.encoder.parameters())
        return Trained(weights, text=start.params.text_encoder)


class DreamBoothLora(_Descent[DreamBoothLoraParams]):
    """Train low-rank adapters, with images of the class beside."""

    name = "dreambooth-lora"
    summary = "DreamBooth with LoRA adapters"

    def choose(self, start: Start[DreamBoothLoraParams]) -> Trained:
        """The adapters."""
        return _with_adapters(start, start.params.rank)


class TextualInversion(_Descent[TextualInversionParams]):
    """Learn a word for the images; the weights stay as they are, so a freeze mask cannot hold it back."""

    name = "textual-inversion"
    summary = "learn a new token's embedding, no weights (textual inversion)"

    def choose(self, start: Start[TextualInversionParams]) -> Trained:
        """The embeddings of the new token."""
        return _with_token(start, ())


class CustomDiffusion(_Descent[CustomDiffusionParams]):
    """Learn a word for the images, and the keys and values that read it."""

    name = "custom-diffusion"
    summary = "learn a new token and cross-attention's keys and values (Custom Diffusion)"

    def choose(self, start: Start[CustomDiffusionParams]) -> Trained:
        """The chosen projections, and the embeddings of the new token where captions have one."""
        from publisher.builtin.training.learning import Trained, cross_attention

        weights = cross_attention(start.pipeline.unet, start.params.parts, start.data.frozen)
        return _with_token(start, weights) if start.params.captions == "rare" else Trained(weights)


def _with_adapters(start: Start[Any], rank: int, *, conv: bool = False) -> Trained:
    from publisher.builtin.training.adapters import add_lora
    from publisher.builtin.training.learning import Trained, frozen_layers

    layers = frozen_layers(start.data.frozen)
    return Trained(add_lora(start.pipeline.unet, rank, start.generator, conv=conv, without=layers))


def _with_token(start: Start[W], weights: tuple[torch.nn.Parameter, ...]) -> Trained:
    from publisher.builtin.training.learning import Trained
    from publisher.builtin.training.tokens import add_token

    params = start.params
    words = params.initial or start.data.concept.name
    return Trained(weights, add_token(start.pipeline, params.rare, words, params.vectors), text=True)
