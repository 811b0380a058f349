"""Attacks that train: each says what it trains, all are trained by :mod:`publisher.api.diffusion.learner`."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any, TypeVar

from publisher.api import (
    Access,
    DescentAttack,
    DescentParams,
    PriorParams,
    TrainingAttack,
    TrainingData,
    TrialStart,
    denoiser_of,
)
from publisher.builtin.attacks.training_params import (
    AdapterTransplantParams,
    CrossAttentionParams,
    CustomDiffusionParams,
    DreamBoothLoraParams,
    DreamBoothParams,
    LoraParams,
    TextualInversionParams,
    TokenParams,
)

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.learner import Trainable

W = TypeVar("W", bound=TokenParams)


class FullFinetune(DescentAttack[DescentParams]):
    """Train the whole denoiser."""

    name = "full-finetune"
    version = "1"
    summary = "fine-tune the whole denoiser"
    access = Access.TRAINING

    def choose(self, start: TrialStart[DescentParams]) -> Trainable:
        """Choose every weight of the denoiser that is not frozen."""
        from publisher.api.diffusion.learner import Trainable, free_parameters

        return Trainable(tuple(free_parameters(denoiser_of(start.pipeline), start.data.frozen).values()))


class CrossAttention(DescentAttack[CrossAttentionParams]):
    """Train cross-attention alone."""

    name = "cross-attention"
    version = "1"
    summary = "fine-tune the denoiser's cross-attention"
    access = Access.TRAINING
    needs = ("cross-attention",)

    def choose(self, start: TrialStart[CrossAttentionParams]) -> Trainable:
        """Choose the projections that the parameters name."""
        from publisher.api.diffusion.learner import Trainable, projections

        return Trainable(projections(start.pipeline, start.params.parts, start.data.frozen))


class Lora(DescentAttack[LoraParams]):
    """Train low-rank adapters on all attention layers."""

    name = "lora"
    version = "1"
    summary = "train LoRA adapters on the denoiser's attention"
    access = Access.ADAPTER

    def choose(self, start: TrialStart[LoraParams]) -> Trainable:
        """Add the adapters."""
        return _with_adapters(start, start.params.rank, conv=start.params.conv)


class AdapterTransplant(DescentAttack[AdapterTransplantParams]):
    """Train low-rank adapters on the base model, and put them on the attacked one.

    An attacker who has an adapter of the base model, such as one from a hub, needs no images and trains nothing.
    """

    name = "adapter-transplant"
    version = "1"
    summary = "LoRA adapters trained on the base model, then put on this one"
    access = Access.ADAPTER
    learns_on_base = True

    def choose(self, start: TrialStart[AdapterTransplantParams]) -> Trainable:
        """Add the adapters."""
        return _with_adapters(start, start.params.rank, conv=start.params.conv)

    def carry(self, learned: Any, attacked: Any) -> None:
        """Copy the weights of the adapters."""
        from publisher.builtin.attacks.adapters import copy_lora

        copy_lora(learned, attacked)


class DreamBooth(DescentAttack[DreamBoothParams]):
    """Train the whole denoiser, with images of the class for prior preservation."""

    name = "dreambooth"
    version = "1"
    summary = "bind a rare token to the images, keeping the class (DreamBooth)"
    access = Access.TRAINING

    def choose(self, start: TrialStart[DreamBoothParams]) -> Trainable:
        """Choose every weight of the denoiser, and of the text encoders if asked for."""
        from publisher.api.diffusion.learner import Trainable, free_parameters, text_sides

        weights = tuple(free_parameters(denoiser_of(start.pipeline), start.data.frozen).values())
        if start.params.text_encoder:
            weights += tuple(weight for side in text_sides(start.pipeline) for weight in side.encoder.parameters())
        return Trainable(weights, text=start.params.text_encoder)


class DreamBoothLora(DescentAttack[DreamBoothLoraParams]):
    """Train low-rank adapters, with images of the class for prior preservation."""

    name = "dreambooth-lora"
    version = "1"
    summary = "DreamBooth with LoRA adapters"
    access = Access.ADAPTER

    def choose(self, start: TrialStart[DreamBoothLoraParams]) -> Trainable:
        """Add the adapters."""
        return _with_adapters(start, start.params.rank)


class _TokenAttack(DescentAttack[W], ABC):
    """Learn a new token."""

    def learning_rate(self, params: W, data: TrainingData) -> float:
        """Return the learning rate, multiplied by the images of one step if ``scale_lr`` asks for it."""
        with_prior = isinstance(params, PriorParams) and params.prior_weight and len(data.prior_latents)
        return params.lr * (params.batch * (2 if with_prior else 1) if params.scale_lr else 1)


class TextualInversion(_TokenAttack[TextualInversionParams]):
    """Learn a word for the images; the weights stay as they are, so a freeze mask cannot hold it back."""

    name = "textual-inversion"
    version = "1"
    summary = "learn a new token's embedding, no weights (textual inversion)"
    access = Access.EMBEDDING
    needs = ("clip-text",)

    def choose(self, start: TrialStart[TextualInversionParams]) -> Trainable:
        """Add the embeddings of the new token."""
        return _with_token(start, ())


class CustomDiffusion(_TokenAttack[CustomDiffusionParams]):
    """Learn a word for the images, and the keys and values that read it: weights are trained in any case."""

    name = "custom-diffusion"
    version = "1"
    summary = "learn a new token and cross-attention's keys and values (Custom Diffusion)"
    access = Access.TRAINING
    needs = ("cross-attention", "clip-text")

    def choose(self, start: TrialStart[CustomDiffusionParams]) -> Trainable:
        """Choose the projections that the parameters name, and add a new token where captions have one."""
        from publisher.api.diffusion.learner import Trainable, projections

        weights = projections(start.pipeline, start.params.parts, start.data.frozen)
        return _with_token(start, weights) if start.params.captions == "rare" else Trainable(weights)


def _with_adapters(start: TrialStart[Any], rank: int, *, conv: bool = False) -> Trainable:
    from publisher.api.diffusion.learner import Trainable, frozen_layers
    from publisher.builtin.attacks.adapters import add_lora

    layers = frozen_layers(start.data.frozen)
    return Trainable(add_lora(start.pipeline, rank, start.generator, conv=conv, without=layers))


def _with_token(start: TrialStart[W], weights: tuple[torch.nn.Parameter, ...]) -> Trainable:
    from publisher.api.diffusion.learner import Trainable
    from publisher.builtin.attacks.tokens import add_token

    params = start.params
    words = params.initial or start.data.concept.name
    return Trainable(weights, add_token(start.pipeline, params.rare, words, params.vectors), text=True)


TRAINING: tuple[type[TrainingAttack[Any]], ...] = (
    FullFinetune,
    CrossAttention,
    Lora,
    AdapterTransplant,
    DreamBooth,
    DreamBoothLora,
    TextualInversion,
    CustomDiffusion,
)
