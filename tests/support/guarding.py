"""A denoiser of Stable Diffusion's kind and of a few thousand numbers, masks for it, and how scripts train it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from publisher.api.freeze_mask import (
    Candidate,
    FreezeMask,
    Frozen,
    FrozenTensor,
    Share,
    architecture_sha256,
    count,
    digests,
)

QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q.weight"
VALUE = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.weight"
FEED = "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight"
FROZEN: Frozen = {"conv_in.bias": (), "conv_in.weight": (), QUERY: (), FEED: ((0, 4), (8, 12))}
"""Tensors, and rows of one."""


def tiny_unet(seed: int = 0) -> Any:
    """Return a small U-Net with random weights."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
    )


def mask_of(unet: nn.Module, frozen: Frozen = FROZEN) -> FreezeMask:
    """Return a mask that freezes this of the denoiser, as it is now."""
    tensors = {name: tensor.detach() for name, tensor in unet.named_parameters()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    candidates = {name: Candidate(shape=shape) for name, shape in shapes.items()}
    return FreezeMask(
        component="unet",
        model="0" * 64,
        architecture=architecture_sha256(shapes),
        recipe={},
        tensors=Share(frozen=len(frozen), total=len(tensors)),
        parameters=Share(
            frozen=sum(
                tensors[name].numel() if not rows else sum(b - a for a, b in rows) * tensors[name][0].numel()
                for name, rows in frozen.items()
            ),
            total=count(dict.fromkeys(candidates, ()), candidates),
        ),
        candidates=candidates,
        frozen=tuple(
            FrozenTensor(name=name, shape=shapes[name], rows=rows, sha256=digests(tensors[name], rows))  # type: ignore[arg-type]
            for name, rows in sorted(frozen.items())
        ),
    )


def loss(unet: Any, seed: int = 0, batch: int = 2) -> Tensor:
    """Return what training scripts minimise, on noise."""
    generator = torch.Generator().manual_seed(seed)
    config = unet.config if hasattr(unet, "config") else unet.module.config
    noisy, noise = torch.randn(2, batch, config.in_channels, 8, 8, generator=generator)
    states = torch.randn(batch, 7, config.cross_attention_dim, generator=generator)
    parameter = next(unet.parameters())
    times = torch.randint(0, 1000, (batch,), generator=generator)
    predicted = unet(noisy.to(parameter.dtype), times, states.to(parameter.dtype)).sample
    return F.mse_loss(predicted.float(), noise)


def adamw(parameters: Iterable[nn.Parameter]) -> torch.optim.AdamW:
    """Return the optimiser of the example scripts, strong enough to be seen after a step."""
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=1e-1)


def train(unet: Any, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    """Train by an ordinary loop."""
    for step in range(steps):
        loss(unet, step).backward()
        nn.utils.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], 1.0)
        optimizer.step()
        optimizer.zero_grad()
