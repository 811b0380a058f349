"""Images to latents, latents to noisy latents, and the loss that diffusion models are trained with.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise                      DDPM (arXiv 2006.11239), eq. 4
L   = || target - eps_theta(x_t, t, c) ||^2                          eq. 14; noise, or velocity (arXiv 2202.00512)

x_s = (1 - s) x_0 + s noise, target = noise - x_0                    flow matching (arXiv 2210.02747), s in [0, 1]
s   = k u / (1 + (k - 1) u), t = 1000 s                              shift k of the noise level u (arXiv 2403.03206)
L   = w(s) || target - v_theta(x_s, t, c) ||^2                       weights w: 1, or as the scripts have them
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.process import AUTOENCODERS, NoiseProcess, process_of, read_process, require_process
from publisher.api.diffusion.text import Text
from publisher.api.families import Timesteps, Weighting
from publisher.api.models import ModelInfo
from publisher.errors import ModelError, UsageError

BATCH = 8


@torch.no_grad()
def encode_images(vae: Any, images: Tensor, tell: Callable[[int], None] | None = None) -> Tensor:
    """Return the mean of the autoencoder's posterior, scaled as the denoiser expects it.

    Where the autoencoder has ``latents_mean`` and ``latents_std``, each channel is normalised by them: what the
    pipeline undoes before it decodes.

    Args:
        vae: one of :data:`publisher.api.diffusion.process.AUTOENCODERS`.
        images: ``(n, 3, h, w)`` in [0, 1].
        tell: function that is told how many more images are done.

    Returns:
        ``(n, c, h / f, w / f)`` float32 on the autoencoder's device.

    Raises:
        ModelError: it is another autoencoder.
    """
    _require_known(vae)
    weight = next(vae.parameters())
    means = []
    for start in range(0, len(images), BATCH):
        pixels = images[start : start + BATCH].to(weight.device, weight.dtype) * 2 - 1
        means.append(_mean(vae, pixels).float())
        if tell is not None:
            tell(len(pixels))
    shift, spread = _normal(vae)
    latents: Tensor = (torch.cat(means) - shift) * vae.config.get("scaling_factor", 1.0) / spread
    return latents


@torch.no_grad()
def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Return the images that latents stand for: what undoes :func:`encode_images`, as far as the autoencoder can.

    Args:
        vae: one of :data:`publisher.api.diffusion.process.AUTOENCODERS`.
        latents: ``(n, c, h / f, w / f)``, scaled as the denoiser has them.

    Returns:
        ``(n, 3, h, w)`` float32 in [0, 1] on the CPU.

    Raises:
        ModelError: it is another autoencoder.
    """
    _require_known(vae)
    weight = next(vae.parameters())
    shift, spread = _normal(vae)
    images = []
    for start in range(0, len(latents), BATCH):
        rows = latents[start : start + BATCH].to(weight.device) * spread / vae.config.get("scaling_factor", 1.0) + shift
        rows = rows.to(weight.dtype)
        video = type(vae).__name__ == "AutoencoderKLQwenImage"
        pixels = vae.decode(rows[:, :, None] if video else rows).sample
        images.append((pixels.flatten(2, 3) if video else pixels).float().cpu())
    return (torch.cat(images) / 2 + 0.5).clamp(0, 1)


def _require_known(vae: Any) -> None:
    if type(vae).__name__ not in AUTOENCODERS:
        raise ModelError(f"is {type(vae).__name__}; images are encoded by {' and '.join(AUTOENCODERS)}", where="vae")


def _normal(vae: Any) -> tuple[Tensor | float, Tensor | float]:
    """Return what latents are shifted by and divided by, where the autoencoder's configuration says so."""
    shift: Tensor | float = vae.config.get("shift_factor") or 0.0
    keys = ("latents_mean", "latents_std")
    if any(vae.config.get(key) is None for key in keys):
        return shift, 1.0
    device = next(vae.parameters()).device
    mean, spread = (torch.tensor(vae.config[key], device=device)[:, None, None] for key in keys)
    return shift + mean, spread


def _mean(vae: Any, pixels: Tensor) -> Tensor:
    """Return what an autoencoder says of images in [-1, 1]: a mean; that of ``AutoencoderDC``, which has no spread."""
    if type(vae).__name__ == "AutoencoderDC":
        latent: Tensor = vae.encode(pixels).latent
        return latent
    videos = pixels[:, :, None] if type(vae).__name__ == "AutoencoderKLQwenImage" else pixels  # of one frame
    mean: Tensor = vae.encode(videos).latent_dist.mean
    return mean.flatten(2, 3) if mean.dim() == 5 else mean


class Noising:
    """A model's forward process and what its denoiser was trained to predict.

    Args:
        process: process of the model, as :func:`publisher.api.diffusion.process.process_of` reads it.
        timesteps: how :meth:`sample` samples the noise level of flow matching, as the family says.
    """

    def __init__(self, process: NoiseProcess, timesteps: Timesteps = "uniform") -> None:
        self.prediction, self.steps, self._shift = process.prediction, process.steps, process.shift
        self._timesteps = timesteps
        if process.prediction != "flow":
            from diffusers import DDPMScheduler

            self.scheduler = DDPMScheduler(**process.betas, prediction_type=process.prediction)

    @classmethod
    def of(cls, pipeline: Any) -> Noising:
        """Return that of a loaded pipeline.

        Raises:
            ModelError: its scheduler is of another process than its family's denoisers are trained on.
        """
        kind = type(pipeline.scheduler).__name__
        process = require_process(pipeline.anatomy, kind, read_process(kind, pipeline.scheduler.config))
        return cls(process, pipeline.anatomy.timesteps)

    @classmethod
    def for_model(cls, model: ModelInfo) -> Noising:
        """Return that of a model that is not loaded.

        Raises:
            ModelError: see :func:`publisher.api.diffusion.process.process_of`.
        """
        return cls(process_of(model), model.anatomy.timesteps)

    def noisy(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return ``x_t`` of latents ``x``, noise and timesteps: ``(B, c, h, w)`` twice and ``(B,)``."""
        if self.prediction == "flow":
            sigma = (t / self.steps)[:, None, None, None]
            return sigma * noise + (1 - sigma) * x
        mixed: Tensor = self.scheduler.add_noise(x, noise, t)
        return mixed

    def target(self, x: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what the denoiser should say, ``(B, c, h, w)``."""
        if self.prediction == "flow":
            return noise - x
        wanted: Tensor = noise if self.prediction == "epsilon" else self.scheduler.get_velocity(x, noise, t)
        return wanted

    def loss(self, denoiser: Denoiser, x: Tensor, text: Text, noise: Tensor, t: Tensor) -> Tensor:
        """Return the mean squared error of each row, ``(B,)`` float32."""
        predicted = denoiser(self.noisy(x, noise, t), t, text)
        return F.mse_loss(predicted, self.target(x, noise, t), reduction="none").mean((1, 2, 3))

    def weights(self, t: Tensor, weighting: Weighting) -> Tensor:
        """Return the weight of each row's loss, ``(B,)`` float32: 1 unless a script of flow matching has another.

        Args:
            t: ``(B,)`` timesteps.
            weighting: rule, of the noise level s: ``"none"`` is 1; ``"image"`` s^2, the error of the image that the
                prediction stands for; ``"sigma-sqrt"`` s^-2; ``"cosmap"`` 2 / (pi (1 - 2 s + 2 s^2)).

        Raises:
            UsageError: a weight is asked for that only flow matching has.
        """
        if weighting == "none":
            return torch.ones(len(t), device=t.device)
        if self.prediction != "flow":
            raise UsageError(
                f"the weighting {weighting!r} is one of flow matching, and this model predicts {self.prediction}",
                hint="Leave weighting out.",
            )
        s = t.float() / self.steps
        if weighting == "image":
            return s.square()
        return s.pow(-2) if weighting == "sigma-sqrt" else 2 / (math.pi * (1 - 2 * s + 2 * s.square()))

    def at(self, places: Tensor) -> Tensor:
        """Return the timesteps at some places of the process: 0 is the image, 1 would be noise.

        Args:
            places: ``(B,)`` in [0, 1), before the shift of flow matching.
        """
        if self.prediction == "flow":
            return self._shift * places / (1 + (self._shift - 1) * places) * self.steps
        return (places * self.steps).long()

    def sample(self, like: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return noise and timesteps for a batch, sampled on the CPU, on the batch's device.

        Timesteps are uniform; of flow matching, noise levels are, or the logistic function of a normal number, which
        the shift then moves.
        """
        noise = torch.randn(like.shape, generator=generator).to(like.device)
        if self.prediction != "flow":
            return noise, torch.randint(self.steps, (len(like),), generator=generator).to(like.device)
        normal = self._timesteps == "logit-normal"
        places = (torch.randn if normal else torch.rand)(len(like), generator=generator)
        return noise, self.at(places.sigmoid() if normal else places).to(like.device)
