"""Low-rank adapters, by peft and diffusers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from publisher.api import Anatomy, ModelError, PrerequisiteError, UsageError, denoiser_of


def add_lora(
    pipeline: Any, rank: int, generator: torch.Generator, *, conv: bool = False, without: Collection[str] = ()
) -> tuple[nn.Parameter, ...]:
    """Add adapters that change nothing yet: Gaussian down-projections, as in diffusers' examples, and zeros.

    Args:
        pipeline: frozen pipeline; layers of its denoiser are wrapped, those that its family names.
        rank: rank of each adapter, and its alpha.
        generator: source of the down-projections.
        conv: convolutions get adapters too.
        without: names of layers that get none.

    Returns:
        The adapters' weights; none where no layer is left.

    Raises:
        PrerequisiteError: peft is not installed.
        UsageError: the family of the model names no layers for an adapter, or none of this kind.
    """
    anatomy: Anatomy = pipeline.anatomy
    if not anatomy.lora_targets or (conv and not anatomy.conv_targets):
        what = "convolutions" if anatomy.lora_targets else "layers"
        raise UsageError(f"the family {anatomy.family} names no {what} that adapters sit on")
    denoiser = denoiser_of(pipeline)
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise PrerequisiteError(
            "an attack with LoRA needs peft", hint="Install it: pip install 'peft>=0.18'"
        ) from error
    targets = [*anatomy.lora_targets, *(anatomy.conv_targets if conv else ())]
    if without:
        ends = tuple(f".{target}" for target in targets)
        targets = [name for name, _ in denoiser.named_modules() if name.endswith(ends) and name not in without]
    if not targets:
        return ()
    denoiser.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
    adapters = {name: weight for name, weight in denoiser.named_parameters() if ".lora_" in name}
    with torch.no_grad():
        for name, weight in adapters.items():
            if ".lora_A." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / rank)
    return tuple(adapters.values())


@torch.no_grad()
def copy_lora(source: Any, target: Any) -> None:
    """Copy the weights of the adapters of one pipeline's denoiser to the same adapters of another one's.

    Raises:
        ModelError: the other one has no such adapter.
    """
    theirs = dict(denoiser_of(target).named_parameters())
    for name, weight in denoiser_of(source).named_parameters():
        if ".lora_" in name:
            if name not in theirs:
                raise ModelError("the model has no place for an adapter of the base model", where=name)
            theirs[name].copy_(weight)
