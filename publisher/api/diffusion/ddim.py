"""DDIM (arXiv 2010.02502, eta 0) with a timestep of its own for each row.

    x_0    = (x_t - sqrt(1 - a_t) eps) / sqrt(a_t)                                          (eq. 12 there)
    x_s    = sqrt(a_s) x_0 + sqrt(1 - a_s) eps,     s the next timestep of the grid

    paper       code        shape       meaning
    a_t         alphas[t]   (1000,)     cumulated alphas of the model; 1 after the last step of the grid
    eps         eps         (B,c,h,w)   predicted noise; for velocity v it is sqrt(a) v + sqrt(1 - a) x
    (1)         w           scalar      guidance scale: uncond + w (target - uncond)

The grid has ``leading`` spacing without offset, whatever sampler the model ships: the authors' code has it so.
"""

from __future__ import annotations

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from publisher.api.diffusion.process import NoiseProcess
from publisher.errors import ModelError


class Ddim:
    """A grid of ``steps`` timesteps over the model's noise schedule.

    Args:
        process: noise process that the model was trained on.
        steps: number of timesteps of the grid.
        guidance: guidance scale w.

    Raises:
        ModelError: the process has fewer timesteps.
    """

    def __init__(self, process: NoiseProcess, steps: int, guidance: float) -> None:
        self.kind = process.prediction
        made = DDIMScheduler(**process.betas)
        self.alphas: Tensor = made.alphas_cumprod.double()
        self.train_steps = len(self.alphas)
        self.steps, self.guidance = steps, guidance
        spacing = self.train_steps // steps
        self.grid: tuple[int, ...] = tuple(range((steps - 1) * spacing, -1, -spacing)) if spacing else ()
        if not spacing:
            raise ModelError(
                f"has {self.train_steps} timesteps, fewer than denoising_steps = {steps}", where="scheduler"
            )

    def step(self, x: Tensor, positions: Tensor, target: Tensor, uncond: Tensor) -> Tensor:
        """Take each row from its place on the grid to the next.

        Args:
            x: noisy latents ``(B, c, h, w)`` at ``grid[positions]``.
            positions: places ``(B,)``; 0 is pure noise.
            target: predictions for the text.
            uncond: predictions for the empty prompt.

        Returns:
            ``(B, c, h, w)`` float32.
        """
        grid = torch.tensor(self.grid)
        now = self.alphas[grid[positions]]
        after = torch.where(
            positions + 1 < self.steps, self.alphas[grid[(positions + 1).clamp(max=self.steps - 1)]], 1.0
        )
        a, b = (value.float().to(x.device)[:, None, None, None] for value in (now, after))
        prediction = uncond + self.guidance * (target - uncond)
        if self.kind == "v_prediction":
            clean, eps = a.sqrt() * x - (1 - a).sqrt() * prediction, a.sqrt() * prediction + (1 - a).sqrt() * x
        else:
            clean, eps = (x - (1 - a).sqrt() * prediction) / a.sqrt(), prediction
        return b.sqrt() * clean + (1 - b).sqrt() * eps

    def timesteps(self, positions: Tensor) -> Tensor:
        """Return the timesteps of places on the grid, ``(B,)``."""
        return torch.tensor(self.grid)[positions]
