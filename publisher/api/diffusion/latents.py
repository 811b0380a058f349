"""Images to latents, latents to noisy latents, and the loss that diffusion models are trained with.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise                      DDPM (arXiv 2006.11239), eq. 4
L   = || target - eps_theta(x_t, t, c) ||^2                          eq. 14; noise, or velocity (arXiv 2202.00512)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.text import Text
from publisher.errors import ModelError

BATCH = 8


@torch.no_grad()
def encode_images(vae: Any, images: Tensor) -> Tensor:
    """The mean of the autoencoder's posterior, scaled as the denoiser expects it.

    Args:
        vae: an ``AutoencoderKL``.
        images: ``(n, 3, h, w)`` in [0, 1].

    Returns:
        ``(n, c, h / f, w / f)`` float32 on the autoencoder's device.
    """
    weight = next(vae.parameters())
    means = []
    for start in range(0, len(images), BATCH):
        pixels = images[start : start + BATCH].to(weight.device, weight.dtype) * 2 - 1
        means.append(vae.encode(pixels).latent_dist.mean.float())
    shift = vae.config.get("shift_factor") or 0.0
    latents: Tensor = (torch.cat(means) - shift) * vae.config.scaling_factor
    return latents


class Noising:
    """A model's forward process and what its denoiser was trained to predict.

    Args:
        config: of the scheduler (``scheduler_config.json``).

    Raises:
        ModelError: it predicts something else than noise or velocity.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers import DDPMScheduler

        known = {key: value for key, value in config.items() if not key.startswith("_")}
        self.scheduler = DDPMScheduler.from_config(known)
        self.prediction = str(self.scheduler.config.prediction_type)
        self.steps = int(self.scheduler.config.num_train_timesteps)
        if self.prediction not in ("epsilon", "v_prediction"):
            raise ModelError(f"the model predicts {self.prediction!r}; known are epsilon and v_prediction")

    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """``x_t``: ``x`` and ``noise`` ``(B, c, h, w)``, ``t (B,)``."""
        mixed: Tensor = self.scheduler.add_noise(x, noise, t)
        return mixed

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should say, ``(B, c, h, w)``."""
        wanted: Tensor = noise if self.prediction == "epsilon" else self.scheduler.get_velocity(x, noise, t)
        return wanted

    def loss(self, denoiser: Denoiser, x: Tensor, text: Text, noise: Tensor, t: Tensor) -> Tensor:
        """The mean squared error of each row, ``(B,)`` float32."""
        predicted = denoiser(self.noisy(x, noise, t), t, text)
        return F.mse_loss(predicted, self.target(x, noise, t), reduction="none").mean((1, 2, 3))

    def draw(self, like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Noise and uniform timesteps for a batch, drawn on the CPU, on the batch's device."""
        noise = torch.randn(like.shape, generator=generator).to(like.device)
        return noise, torch.randint(self.steps, (len(like),), generator=generator).to(like.device)
