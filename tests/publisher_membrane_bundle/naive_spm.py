"""The published training loop of SPM, written plainly from its description: the other side of a comparison.

Nothing of the plugin is imported. Modules with patched forwards, every unconditional half computed by the guidance
helper, anchors interleaved with the empty prompt and then split in halves (so that the first half of them is thrown
away), one optimizer entry a tensor, diffusers' own sampler and learning rate schedule.

Samples of one step, from one generator: text, k, height and width where they vary, x_T, then the anchors that survive
(z, one uniform number an attempt; the length). The anchors that are thrown away come from another generator.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import DDIMScheduler
from diffusers.optimization import get_cosine_with_hard_restarts_schedule_with_warmup as cosine_with_restarts
from torch import Tensor, nn


class LoraModule(nn.Module):
    """One branch; takes the host's forward."""

    def __init__(self, host: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        if isinstance(host, nn.Conv2d):
            self.lora_down: nn.Module = nn.Conv2d(host.in_channels, rank, 1, bias=False)
            self.lora_up: nn.Module = nn.Conv2d(rank, host.out_channels, 1, bias=False)
        else:
            self.lora_down = nn.Linear(host.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, host.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_down.weight, a=math.sqrt(5), generator=generator)
        nn.init.zeros_(self.lora_up.weight)
        self.scale, self.multiplier = alpha / rank, 0.0
        self.org_forward = host.forward
        host.forward = self.forward

    def forward(self, x: Tensor) -> Tensor:
        return self.org_forward(x) + self.lora_up(self.lora_down(x)) * self.multiplier * self.scale


class Network:
    """All branches of a UNet, by their kohya names; on inside ``with``."""

    def __init__(self, unet: nn.Module, rank: int, alpha: float, generator: torch.Generator) -> None:
        hosts = {}
        for path, module in unet.named_modules():
            if module.__class__.__name__ == "Transformer2DModel":
                for child, layer in module.named_modules():
                    if layer.__class__.__name__ in ("Linear", "Conv2d"):
                        hosts["lora_unet_" + f"{path}.{child}".replace(".", "_")] = layer
        self.modules = {name: LoraModule(hosts[name], rank, alpha, generator) for name in sorted(hosts)}

    def parameters(self) -> list[Tensor]:
        return [parameter for module in self.modules.values() for parameter in module.parameters()]

    def __enter__(self) -> None:
        for module in self.modules.values():
            module.multiplier = 1.0

    def __exit__(self, *_: object) -> None:
        for module in self.modules.values():
            module.multiplier = 0.0


@dataclass
class Published:
    """One training; every setting by its published name where it has one."""

    unet: Any
    scheduler: dict[str, Any]
    embeddings: dict[str, Tensor]
    prompts: list[tuple[str, str, str]]
    """Target, neutral, positive."""
    iterations: int
    lr: float
    warmup: int
    cycles: int
    rank: int = 1
    alpha: float = 1.0
    la_strength: float = 1000.0
    guidance_scale: float = 1.0
    max_denoising_steps: int = 30
    init: torch.Generator = field(default_factory=torch.Generator)
    samples: torch.Generator = field(default_factory=torch.Generator)
    dynamic_resolution: bool = False
    collect_garbage: bool = False
    losses: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.unet.requires_grad_(False)
        self.network = Network(self.unet, self.rank, self.alpha, self.init)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.lr, weight_decay=1e-2)
        self.schedule = cosine_with_restarts(self.optimizer, self.warmup, self.iterations, self.cycles)
        self.junk = torch.Generator().manual_seed(99)

    def run(self) -> Network:
        for _ in range(self.iterations):
            self.step()
        return self.network

    def step(self) -> None:
        self.optimizer.zero_grad()
        erase, anchor = self.iteration()
        (erase + self.la_strength * anchor).backward()
        self.losses.append((erase.item(), anchor.item()))
        self.optimizer.step()
        self.schedule.step()
        if self.collect_garbage:
            gc.collect()

    def iteration(self) -> tuple[Tensor, Tensor]:
        target, neutral, positive = self.prompts[self._integer(0, len(self.prompts))]
        k = self._integer(1, self.max_denoising_steps)
        size = self.unet.config.sample_size
        height, width = ((self._integer(4, 8) * size // 8 if self.dynamic_resolution else size) for _ in range(2))
        latents = torch.randn(1, 4, height, width, generator=self.samples)
        sampler = DDIMScheduler(
            **{
                **{key: value for key, value in self.scheduler.items() if not key.startswith("_")},
                "clip_sample": False,
                "set_alpha_to_one": True,
                "steps_offset": 0,
                "timestep_spacing": "leading",
            }
        )
        sampler.set_timesteps(self.max_denoising_steps)
        with torch.no_grad(), self.network:
            for t in sampler.timesteps[:k]:
                latents = sampler.step(self._predict(latents, t, self._pair(target), 3.0), t, latents).prev_sample
        sampler.set_timesteps(1000)
        t = sampler.timesteps[int(k * 1000 / self.max_denoising_steps)]
        with torch.no_grad():
            positive_latents = self._predict(latents, t, self._pair(positive), 1.0)
            neutral_latents = self._predict(latents, t, self._pair(neutral), 1.0)
        anchors = self._anchors(self.embeddings[target])
        with self.network:
            target_latents = self._predict(latents, t, self._pair(target), 1.0)
            anchor_latents = self._predict(latents.repeat(4, 1, 1, 1), t, anchors, 1.0)
        with torch.no_grad():
            anchor_latents_ori = self._predict(latents.repeat(4, 1, 1, 1), t, anchors, 1.0)
        goal = neutral_latents - self.guidance_scale * (positive_latents - neutral_latents)
        return nn.functional.mse_loss(target_latents, goal), nn.functional.mse_loss(anchor_latents, anchor_latents_ori)

    def _predict(self, latents: Tensor, t: Tensor, pairs: Tensor, guidance: float) -> Tensor:
        both = self.unet(torch.cat([latents] * 2), t, pairs).sample
        uncond, text = both.chunk(2)
        return uncond + guidance * (text - uncond)

    def _pair(self, prompt: str) -> Tensor:
        return torch.cat([self.embeddings[""], self.embeddings[prompt]])

    def _anchors(self, target: Tensor) -> Tensor:
        thrown = [self._sample(target, self.junk) for _ in range(2)]
        kept = [self._sample(target, self.samples) for _ in range(2)]
        return torch.cat([row for anchor in (*thrown, *kept) for row in (self.embeddings[""], anchor)])

    def _sample(self, target: Tensor, generator: torch.Generator) -> Tensor:
        while True:
            vector = torch.randn(target.shape, generator=generator)
            vector = vector / vector.norm(2)
            similarity = nn.functional.cosine_similarity(vector.flatten(), target.flatten(), dim=0)
            if torch.rand((), generator=generator) < 1 - similarity:
                break
        return vector * target.norm(2) * torch.empty(()).uniform_(0.8, 1.2, generator=generator)

    def _integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=self.samples))
