"""theta_ft: one fine-tuning by the attacker's own optimiser, from theta_pre, in place.

AdamW (betas 0.9 and 0.999, decoupled weight decay) on the ordinary diffusion loss, gradients shortened to a norm, a
constant rate: FreezeAsGuard's relearning, and what diffusers' training examples do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.api import UsageError
from publisher.api.diffusion.denoiser import Denoiser
from publisher_freeze_mask.material import Album, Material
from publisher_freeze_mask.params import AdaptParams
from publisher_freeze_mask.place import Place

MOMENTS = ("exp_avg", "exp_avg_sq")
Snapshot = Callable[[], dict[str, Tensor]]
"""Gives what is needed to go on from here."""


@dataclass(frozen=True)
class Attacker:
    """One fine-tuning.

    Args:
        place: the network, at theta_pre.
        denoiser: of the same network.
        material: texts and noise.
        names: tensors that it trains.
        params: every None replaced.
    """

    place: Place
    denoiser: Denoiser
    material: Material
    names: list[str]
    params: AdaptParams

    def __call__(
        self,
        album: Album,
        generator: torch.Generator,
        saved: Mapping[str, Tensor] | None,
        told: Callable[[float, Snapshot], None],
    ) -> tuple[dict[str, Tensor], list[float]]:
        """Learn an album; the network is at theta_pre afterwards.

        Args:
            album: its images.
            generator: of rows, noise and timesteps.
            saved: a snapshot to go on from.
            told: after each step its loss, and what gives a snapshot. What it raises ends the run.

        Returns:
            theta_ft - theta_pre, and the loss of every step.

        Raises:
            UsageError: a loss is no number any more.
        """
        self.place.moving(self.names)
        tensors = {name: self.place.parameters[name].requires_grad_() for name in self.names}
        adam = torch.optim.AdamW(
            list(tensors.values()), lr=self.params.lr or 0.0, weight_decay=self.params.weight_decay, foreach=False
        )
        losses = [] if saved is None else _restore(saved, tensors, adam, generator)
        try:
            while len(losses) < (self.params.steps or 0):
                losses.append(self._step(adam, tensors, album, generator))
                told(losses[-1], lambda: _snapshot(tensors, adam, generator, losses))
            return self.place.delta(self.names), losses
        finally:
            for tensor in tensors.values():
                tensor.grad = None
            self.place.network.requires_grad_(requires_grad=False)
            self.place.back()

    def _step(
        self, adam: torch.optim.AdamW, tensors: dict[str, Tensor], album: Album, generator: torch.Generator
    ) -> float:
        sampled = self.material.sample(album, self.params.batch, generator)
        loss = self.material.loss(self.denoiser, album, sampled)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UsageError(
                "the fine-tuning's loss is no number any more", where="freeze-mask", hint="Lower adapt.lr."
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tensors.values(), self.params.max_grad_norm)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return value


def _snapshot(
    tensors: dict[str, Tensor], adam: torch.optim.AdamW, generator: torch.Generator, losses: list[float]
) -> dict[str, Tensor]:
    """The weights themselves, not their difference, whose last bits would be others."""
    moments = {f"{key}|{name}": adam.state[one][key] for key in MOMENTS for name, one in tensors.items()}
    weights = {f"theta|{name}": one for name, one in tensors.items()}
    log = torch.tensor(losses, dtype=torch.float64)
    return {**weights, **moments, "samples": generator.get_state(), "losses": log}


def _restore(
    saved: Mapping[str, Tensor], tensors: dict[str, Tensor], adam: torch.optim.AdamW, generator: torch.Generator
) -> list[float]:
    losses: list[float] = saved["losses"].tolist()
    for name, one in tensors.items():
        with torch.no_grad():
            one.copy_(saved[f"theta|{name}"])
        moments = {key: saved[f"{key}|{name}"].to(one.device) for key in MOMENTS}
        adam.state[one] = {"step": torch.tensor(float(len(losses))), **moments}
    generator.set_state(saved["samples"])
    return losses
