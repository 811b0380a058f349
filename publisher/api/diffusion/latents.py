"""Images to latents, latents to noisy latents, and the loss that diffusion models are trained with.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise                      DDPM (arXiv 2006.11239), eq. 4
L   = || target - eps_theta(x_t, t, c) ||^2                          eq. 14; noise, or velocity (arXiv 2202.00512)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.process import LATENTS, NoiseProcess, read_process
from publisher.api.diffusion.text import Text
from publisher.errors import ModelError

BATCH = 8


@torch.no_grad()
def encode_images(vae: Any, images: Tensor, tell: Callable[[int], None] | None = None) -> Tensor:
    """Return the mean of the autoencoder's posterior, scaled as the denoiser expects it.

    Where the autoencoder has ``latents_mean`` and ``latents_std``, each channel is normalised by them: what the
    pipeline undoes before it decodes.

    Args:
        vae: an ``AutoencoderKL``.
        images: ``(n, 3, h, w)`` in [0, 1].
        tell: function that is told how many more images are done.

    Returns:
        ``(n, c, h / f, w / f)`` float32 on the autoencoder's device.

    Raises:
        ModelError: it is another autoencoder.
    """
    if type(vae).__name__ != "AutoencoderKL":
        raise ModelError(f"is {type(vae).__name__}; images are encoded by AutoencoderKL alone", where="vae")
    weight = next(vae.parameters())
    means = []
    for start in range(0, len(images), BATCH):
        pixels = images[start : start + BATCH].to(weight.device, weight.dtype) * 2 - 1
        means.append(vae.encode(pixels).latent_dist.mean.float())
        if tell is not None:
            tell(len(pixels))
    shift = vae.config.get("shift_factor") or 0.0
    spread: Tensor | float = 1.0
    if all(vae.config.get(key) is not None for key in LATENTS):
        mean, spread = (torch.tensor(vae.config[key], device=weight.device)[:, None, None] for key in LATENTS)
        shift = shift + mean
    latents: Tensor = (torch.cat(means) - shift) * vae.config.scaling_factor / spread
    return latents


class Noising:
    """A model's forward process and what its denoiser was trained to predict.

    Args:
        process: process of the model, as :func:`publisher.api.diffusion.process.process_of` reads it.
    """

    def __init__(self, process: NoiseProcess) -> None:
        from diffusers import DDPMScheduler

        self.scheduler = DDPMScheduler(**process.betas, prediction_type=process.prediction)
        self.prediction, self.steps = process.prediction, process.steps

    @classmethod
    def of(cls, pipeline: Any) -> Noising:
        """Return that of a loaded pipeline.

        Raises:
            ModelError: its scheduler is of another process.
        """
        return cls(read_process(type(pipeline.scheduler).__name__, pipeline.scheduler.config))

    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return ``x_t`` of latents ``x``, noise and timesteps: ``(B, c, h, w)`` twice and ``(B,)``."""
        mixed: Tensor = self.scheduler.add_noise(x, noise, t)
        return mixed

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what the denoiser should say, ``(B, c, h, w)``."""
        wanted: Tensor = noise if self.prediction == "epsilon" else self.scheduler.get_velocity(x, noise, t)
        return wanted

    def loss(self, denoiser: Denoiser, x: Tensor, text: Text, noise: Tensor, t: Tensor) -> Tensor:
        """Return the mean squared error of each row, ``(B,)`` float32."""
        predicted = denoiser(self.noisy(x, noise, t), t, text)
        return F.mse_loss(predicted, self.target(x, noise, t), reduction="none").mean((1, 2, 3))

    def sample(self, like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Sample noise and uniform timesteps for a batch, on the CPU; return them on the batch's device."""
        noise = torch.randn(like.shape, generator=generator).to(like.device)
        return noise, torch.randint(self.steps, (len(like),), generator=generator).to(like.device)
