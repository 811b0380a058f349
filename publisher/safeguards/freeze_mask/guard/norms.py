"""A crash of torch, and its cure.

On the CPU (seen with torch 2.13) the backward pass of GroupNorm ends in a segmentation fault when its input is in
``channels_last`` format and needs no gradient, and its own parameters do. Without a mask that never happens in a
denoiser; with one it does as soon as the layers before its first norm are frozen. Asking for the input's gradient
avoids it; nobody uses that gradient.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn


def cure(network: nn.Module, undo: ExitStack) -> None:
    """Keep the backward pass of every GroupNorm of a network from crashing.

    Args:
        network: gets a hook on each norm.
        undo: is told how they are removed.
    """
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            undo.callback(module.register_forward_pre_hook(_ask_for_gradient).remove)


def _ask_for_gradient(norm: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
    x = inputs[0]
    if x.requires_grad or x.device.type != "cpu" or not torch.is_grad_enabled():
        return None
    if not any(parameter.requires_grad for parameter in norm.parameters()):
        return None
    return (x.detach().requires_grad_(), *inputs[1:])
