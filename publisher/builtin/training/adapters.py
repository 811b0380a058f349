"""Low-rank adapters, by peft and diffusers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from publisher.api import PrerequisiteError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv")


def add_lora(
    unet: Any, rank: int, generator: torch.Generator, *, conv: bool = False, without: Collection[str] = ()
) -> tuple[nn.Parameter, ...]:
    """Add adapters that change nothing yet: Gaussian down-projections, as in diffusers' examples, and zeros.

    Args:
        unet: frozen denoiser, whose layers are wrapped.
        rank: rank of each adapter, and its alpha.
        generator: source of the down-projections.
        conv: convolutions get adapters too.
        without: names of layers that get none.

    Returns:
        The adapters' weights; none where no layer is left.

    Raises:
        PrerequisiteError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise PrerequisiteError(
            "an attack with LoRA needs peft", hint="Install it: pip install 'peft>=0.18'"
        ) from error
    targets = [*ATTENTION, *(CONVOLUTIONS if conv else ())]
    if without:
        ends = tuple(f".{target}" for target in targets)
        targets = [name for name, _ in unet.named_modules() if name.endswith(ends) and name not in without]
    if not targets:
        return ()
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
    adapters = {name: weight for name, weight in unet.named_parameters() if ".lora_" in name}
    with torch.no_grad():
        for name, weight in adapters.items():
            if ".lora_A." in name:
                weight.copy_(torch.randn(weight.shape, generator=generator) / rank)
    return tuple(adapters.values())
