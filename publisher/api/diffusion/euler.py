"""Euler steps of flow matching (arXiv 2210.02747), with a noise level of its own for each row.

    u_i    = 1 - i / T,    s_i = k u_i / (1 + (k - 1) u_i),    i = 0..T-1, and 0 after the last        (grid)
    x_s'   = x_s + (s' - s) v,     s' the next noise level                                            (step)

    paper       code        shape       meaning
    s_i         sigmas[i]   (T+1,)      noise levels: 1 is noise, 0 the image; timesteps are 1000 s
    k           shift       scalar      how far the model's own sampler moves them towards noise (arXiv 2403.03206)
    v           v           (B,c,h,w)   predicted velocity, noise minus image
    (1)         w           scalar      guidance scale: uncond + w (target - uncond)

Where the model's scheduler shifts by the size of the image, k is e^mu, with mu on the line through its two points
(arXiv 2403.03206, as diffusers has it), for a denoiser that reads 2 x 2 latent pixels as one token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from publisher.api.diffusion.process import process_of
from publisher.api.models import ModelInfo


class Euler:
    """A grid of ``steps`` noise levels of flow matching.

    Args:
        train_steps: timestep of pure noise.
        shift: k.
        steps: number of noise levels of the grid.
        guidance: guidance scale w.
    """

    def __init__(self, train_steps: int, shift: float, steps: int, guidance: float) -> None:
        self.train_steps, self.steps, self.guidance = train_steps, steps, guidance
        places = 1 - torch.arange(steps + 1, dtype=torch.float64) / steps
        self.sigmas: Tensor = shift * places / (1 + (shift - 1) * places)
        self.grid: tuple[float, ...] = tuple((self.sigmas[:-1] * train_steps).tolist())

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
        change = (self.sigmas[positions + 1] - self.sigmas[positions]).float().to(x.device)
        return x + change[:, None, None, None] * (uncond + self.guidance * (target - uncond))

    def timesteps(self, positions: Tensor) -> Tensor:
        """Return the timesteps of places on the grid, ``(B,)`` float32."""
        return torch.tensor(self.grid)[positions]


def sampling_shift(model: ModelInfo) -> float:
    """Return the shift k with which a model of flow matching is sampled.

    Raises:
        ModelError: its noise process is not known.
    """
    config = model.config("scheduler")
    if not config.get("use_dynamic_shifting"):
        return process_of(model).shift
    tokens = math.prod(side // 2 for side in model.anatomy.latents.size)
    fewest, most = (config.get(f"{name}_image_seq_len", default) for name, default in (("base", 256), ("max", 4096)))
    low, high = (config.get(f"{name}_shift", default) for name, default in (("base", 0.5), ("max", 1.15)))
    mu = low + (high - low) * (tokens - fewest) / (most - fewest)
    return float(mu) if config.get("time_shift_type") == "linear" else math.exp(mu)
