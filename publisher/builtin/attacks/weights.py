"""Attacks that change weights, and then ask in plain words. Nothing is trained.

Two put tensors of the base model back. One rounds the weights, as people do who want a smaller file: no attack in
itself, but what a hardening has moved a little may be lost in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from publisher.api import Access, Anatomy, Concept, ImageRequest, Params, Sampling, WeightAttack
from publisher.builtin.attacks.asking import spread

if TYPE_CHECKING:
    import torch


class CopyAttentionParams(Params):
    """Which attention."""

    which: Literal["cross", "self", "both"] = "both"
    """Tensors where text enters (cross-attention, ``attn2`` of Stable Diffusion: all that MIMA and UCE change; the text
    entry of other models, the layer it is folded into, and the pooled vector's), of all other attention (``attn1``), or
    both (all that IMMA changes)."""


class CopyAttention(WeightAttack[CopyAttentionParams]):
    """Take attention from the base model: one line for whoever has it."""

    name = "copy-attention"
    version = "1"
    summary = "the base model's attention weights put back"
    access = Access.BASE

    def requests(self, params: CopyAttentionParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread(concept, concept.prompts, sampling)

    def alter(
        self,
        params: CopyAttentionParams,
        anatomy: Anatomy,
        component: str,
        name: str,
        hardened: torch.Tensor,
        base: torch.Tensor,
    ) -> torch.Tensor:
        """Return the base model's, if it is one of the chosen attention."""
        if component != anatomy.denoiser:
            return hardened
        doors = (*anatomy.text_fold, *anatomy.text_entry, *anatomy.pooled_entry)
        cross = name in doors or f".{anatomy.cross_attention}." in name
        others = any(f".{layer}." in name for layer in anatomy.attention)
        wanted = {"cross": cross, "self": others, "both": cross or others}
        return base if wanted[params.which] else hardened


class MergeParams(Params):
    """How much of the base model."""

    alpha: float = Field(default=0.3, gt=0, lt=1)
    """Share of the base model in the mixture; 0.1, 0.3 and 0.5 are usual, and stop just before closed-form edits
    give way; 0.7 shows it."""


class MergeWithBase(WeightAttack[MergeParams]):
    """Mix the weights with those of the base model, as people mix models."""

    name = "merge-with-base"
    version = "1"
    summary = "weights mixed with the base model's"
    access = Access.BASE

    def requests(self, params: MergeParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread(concept, concept.prompts, sampling)

    def alter(
        self,
        params: MergeParams,
        anatomy: Anatomy,  # noqa: ARG002
        component: str,  # noqa: ARG002
        name: str,  # noqa: ARG002
        hardened: torch.Tensor,
        base: torch.Tensor,
    ) -> torch.Tensor:
        """Return ``(1 - alpha) hardened + alpha base``, computed in float32; tensors of whole numbers stay."""
        if not hardened.is_floating_point():
            return hardened
        return hardened.float().lerp(base.float(), params.alpha).to(hardened.dtype)


class CastParams(Params):
    """How coarse."""

    to: Literal["float16", "bfloat16", "int8"] = "int8"
    """Numbers that the weights are rounded to, and then read as before. ``int8``: 255 steps for each row of a matrix or
    kernel, evenly from its largest magnitude down to the same below zero. Vectors stay, as tools leave them."""


class Cast(WeightAttack[CastParams]):
    """Round all weights, as smaller files and faster kernels need it."""

    name = "cast"
    version = "1"
    summary = "all weights rounded to 16 bits, or to 8 by row"
    access = Access.TRAINING
    every_tensor = True

    def requests(self, params: CastParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread(concept, concept.prompts, sampling)

    def alter(
        self,
        params: CastParams,
        anatomy: Anatomy,  # noqa: ARG002
        component: str,  # noqa: ARG002
        name: str,  # noqa: ARG002
        hardened: torch.Tensor,
        base: torch.Tensor,  # noqa: ARG002
    ) -> torch.Tensor:
        """Return the tensor, rounded in float32; vectors and whole numbers stay."""
        import torch

        if hardened.ndim < 2 or not hardened.is_floating_point():
            return hardened
        if params.to != "int8":
            return hardened.to(getattr(torch, params.to)).to(hardened.dtype)
        rows = hardened.float().flatten(1)
        step = rows.abs().amax(dim=1, keepdim=True) / 127
        rounded = (rows / step.clamp(min=torch.finfo(torch.float32).tiny)).round() * step
        return rounded.view(hardened.shape).to(hardened.dtype)


WEIGHTS: tuple[type[WeightAttack], ...] = (CopyAttention, MergeWithBase, Cast)  # type: ignore[type-arg]
