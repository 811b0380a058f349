"""Attacks that change weights, and then ask in plain words. Nothing is trained.

Two put tensors of the base model back. One rounds or prunes the weights, as people do who want a smaller file: no
attack in itself, but what a hardening has moved a little may be lost in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from publisher.api import Access, Anatomy, Concept, ImageRequest, Params, Sampling, WeightAttack, spread_requests

if TYPE_CHECKING:
    import torch

NF4_BLOCK = 64
"""Weights that have one scale in NormalFloat4."""


class CopyAttentionParams(Params):
    """Which attention."""

    which: Literal["cross", "self", "both"] = "both"
    """Tensors where text enters (cross-attention, ``attn2`` of Stable Diffusion: all that MIMA and UCE change; the text
    entry of other models, the layer it is folded into, and the pooled vector's), of all other attention (``attn1``), or
    both (all that IMMA changes)."""


class CopyAttention(WeightAttack[CopyAttentionParams]):
    """Take attention from the base model: one line for those who have it."""

    name = "copy-attention"
    version = "1"
    summary = "the base model's attention weights put back"
    access = Access.BASE

    def requests(self, params: CopyAttentionParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread_requests(concept, concept.prompts, sampling)

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
        others = any(f".{layer}." in name for layer in anatomy.attention)
        cross = _lets_text_in(anatomy, name)
        wanted = {"cross": cross, "self": others, "both": cross or others}
        return base if wanted[params.which] else hardened


class MergeParams(Params):
    """How much of the base model, and of which tensors."""

    alpha: float = Field(default=0.3, ge=-3, le=3)
    """Share of the base model in the mixture; 0.1, 0.3 and 0.5 are usual, and stop just before closed-form edits
    give way; 0.7 shows it. Above 1 the mixture goes on past the base model, and takes back more than the release has
    done to it (negation, as task arithmetic calls it). Below 0 it goes on in the release's direction."""
    tensors: Literal["all", "cross", "others"] = "all"
    """Those that are mixed: all, those where text enters the denoiser, or all others."""

    @model_validator(mode="after")
    def _mixes(self) -> Self:
        if self.alpha == 0 or (self.alpha == 1 and self.tensors == "all"):
            raise ValueError(f"alpha {self.alpha:g} leaves one of the two models as it is: name another share")
        return self


class MergeWithBase(WeightAttack[MergeParams]):
    """Mix the weights with those of the base model, as people mix models."""

    name = "merge-with-base"
    version = "2"
    summary = "weights mixed with the base model's, or moved past them"
    access = Access.BASE
    may_break = True

    def requests(self, params: MergeParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread_requests(concept, concept.prompts, sampling)

    def alter(
        self,
        params: MergeParams,
        anatomy: Anatomy,
        component: str,
        name: str,
        hardened: torch.Tensor,
        base: torch.Tensor,
    ) -> torch.Tensor:
        """Return ``(1 - alpha) hardened + alpha base``, computed in float32; tensors of whole numbers stay."""
        cross = component == anatomy.denoiser and _lets_text_in(anatomy, name)
        wanted = {"all": True, "cross": cross, "others": not cross}
        if not hardened.is_floating_point() or not wanted[params.tensors]:
            return hardened
        return hardened.float().lerp(base.float(), params.alpha).to(hardened.dtype)


Format = Literal["float16", "bfloat16", "fp8", "int8", "int4", "nf4", "prune-30", "prune-50"]


class CastParams(Params):
    """How coarse."""

    to: Format = "int8"
    """Numbers that the weights are rounded to, and then read as before. ``fp8``: e4m3, without a scale. ``int8`` and
    ``int4``: 255 or 15 steps for each row of a matrix or kernel, evenly from its largest magnitude down to the same
    below zero. ``nf4``: 16 quantiles of the normal distribution, by blocks of 64. ``prune-30`` and ``prune-50``: that
    share of the weights, the smallest of each tensor, becomes zero. Vectors stay, as tools leave them."""


class Cast(WeightAttack[CastParams]):
    """Round all weights, as smaller files and faster kernels need it."""

    name = "cast"
    version = "2"
    summary = "all weights rounded to 16, 8 or 4 bits, or pruned"
    access = Access.TRAINING
    every_tensor = True
    may_break = True

    def requests(self, params: CastParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts, spread evenly."""
        return spread_requests(concept, concept.prompts, sampling)

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
        if hardened.ndim < 2 or not hardened.is_floating_point():
            return hardened
        return _rounded(params.to, hardened.float()).to(hardened.dtype)


def _rounded(to: Format, weight: torch.Tensor) -> torch.Tensor:
    """Return a float32 tensor of two or more dimensions as ``to`` keeps it."""
    import torch

    most = torch.finfo(torch.float8_e4m3fn).max
    ways: Mapping[Format, Callable[[], torch.Tensor]] = {
        "float16": lambda: weight.half().float(),
        "bfloat16": lambda: weight.bfloat16().float(),
        "fp8": lambda: weight.clamp(-most, most).to(torch.float8_e4m3fn).float(),
        "int8": lambda: _by_row(weight, 127),
        "int4": lambda: _by_row(weight, 7),
        "nf4": lambda: _normal_float(weight),
        "prune-30": lambda: _pruned(weight, 0.3),
        "prune-50": lambda: _pruned(weight, 0.5),
    }
    return ways[to]()


def _by_row(weight: torch.Tensor, steps: int) -> torch.Tensor:
    """Round each row to whole steps, so many on each side of zero."""
    import torch

    rows = weight.flatten(1)
    step = rows.abs().amax(dim=1, keepdim=True) / steps
    return ((rows / step.clamp(min=torch.finfo(torch.float32).tiny)).round() * step).view(weight.shape)


def _normal_float(weight: torch.Tensor) -> torch.Tensor:
    """Round blocks of 64 to NormalFloat4: Dettmers, Pagnoni, Holtzman, Zettlemoyer 2023, eq. 4 and appendix E.

    Its levels are quantiles of the normal distribution, seven below zero, zero, and eight above it.
    """
    import torch

    tail = (1 - (1 / 32 + 1 / 30) / 2, 0.5)
    below, above = (torch.special.ndtri(torch.linspace(*tail, n, dtype=torch.float64)[:-1]) for n in (8, 9))
    levels = (torch.cat([-below, torch.zeros(1, dtype=torch.float64), above.flip(0)]) / above[0]).float()
    flat = weight.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % NF4_BLOCK)).view(-1, NF4_BLOCK)
    largest = blocks.abs().amax(dim=1, keepdim=True)
    scaled = blocks / largest.clamp(min=torch.finfo(torch.float32).tiny)
    nearest = torch.bucketize(scaled, (levels[1:] + levels[:-1]) / 2)
    rounded: torch.Tensor = levels[nearest] * largest
    return rounded.flatten()[: len(flat)].view(weight.shape)


def _pruned(weight: torch.Tensor, share: float) -> torch.Tensor:
    """Set the share of smallest magnitude to zero."""
    count = int(share * weight.numel())
    smallest = weight.abs().flatten().argsort(stable=True)[:count]
    return weight.flatten().index_fill(0, smallest, 0.0).view(weight.shape)


def _lets_text_in(anatomy: Anatomy, name: str) -> bool:
    """Return whether text enters the denoiser by this tensor."""
    doors = (*anatomy.text_fold, *anatomy.text_entry, *anatomy.pooled_entry)
    return name in doors or f".{anatomy.cross_attention}." in name


WEIGHTS: tuple[type[WeightAttack], ...] = (CopyAttention, MergeWithBase, Cast)  # type: ignore[type-arg]
