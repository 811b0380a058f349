"""AdamW on the flat vector of all factors, the learning rate's schedule, and clipping that works.

    lr(i) = lr i / warmup                                              for i < warmup: the first step has 0
    lr(i) = lr (1 + cos(pi (cycles p mod 1))) / 2,  p = (i - warmup) / (steps - warmup)            after it

As in the authors' code (``cosine_with_restarts``); weight decay on one flat vector is the same arithmetic as on many.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from publisher_membrane_bundle.branch import Membranes
from publisher_membrane_bundle.params import MembraneParams

WEIGHT_DECAY = 1e-2
_FUSED = ("cpu", "cuda")


def learning_rate(params: MembraneParams, step: int) -> float:
    """Of 0-based ``step``."""
    if step < params.warmup:
        return params.lr * step / params.warmup
    progress = (step - params.warmup) / max(1, params.steps - params.warmup)
    return params.lr * (1 + math.cos(math.pi * (params.cycles * progress % 1))) / 2


class Optimiser:
    """One for all membranes."""

    def __init__(self, membranes: Membranes, params: MembraneParams) -> None:
        self.membranes, self.params = membranes, params
        fused = membranes.flat.device.type in _FUSED
        self.adam = torch.optim.AdamW([membranes.flat], lr=0.0, weight_decay=WEIGHT_DECAY, fused=fused)

    def step(self, index: int) -> None:
        """The 0-based step ``index``, with the gradients that are there."""
        if self.params.max_grad_norm:
            self._clip()
        self.adam.param_groups[0]["lr"] = learning_rate(self.params, index)
        self.adam.step()

    def state(self) -> dict[str, Tensor]:
        """Factors and moments."""
        moments = {key: value for key, value in self.adam.state[self.membranes.flat].items() if key != "step"}
        return {"flat": self.membranes.flat.detach(), **moments}

    def restore(self, state: dict[str, Tensor], done: int) -> None:
        """Go on after ``done`` steps."""
        device = self.membranes.flat.device
        moments = {key: value.to(device) for key, value in state.items() if key != "flat"}
        with torch.no_grad():
            self.membranes.flat.copy_(state["flat"])
        self.adam.state[self.membranes.flat] = {"step": torch.tensor(float(done), device=device), **moments}

    def _clip(self) -> None:
        """Each membrane on its own: one that is far off does not hold the others back."""
        gradient = self.membranes.flat.grad
        if gradient is None:
            return
        for parts in self.membranes.per_membrane(gradient):
            norm = torch.nn.utils.get_total_norm(parts)
            for part in parts:
                part.mul_((self.params.max_grad_norm / (norm + 1e-6)).clamp(max=1))
