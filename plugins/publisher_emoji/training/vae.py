"""The autoencoder: 32x32 pixels to 8x8x4 latents of unit variance."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from publisher_emoji.training.artwork import Artwork, augment
from publisher_emoji.training.config import Config
from publisher_emoji.training.loop import step_generator, train


def build_vae(config: Config) -> AutoencoderKL:
    """Build an untrained ``AutoencoderKL`` of the recipe's size."""
    torch.manual_seed(config.seed)
    levels = len(config.vae.block_out_channels)
    return AutoencoderKL(
        sample_size=config.image.size,
        block_out_channels=config.vae.block_out_channels,
        latent_channels=config.vae.latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    )


def train_vae(config: Config, artwork: Artwork, folder: Path) -> AutoencoderKL:
    """Train from the seed; sets ``scaling_factor`` so that latents have unit variance."""
    vae = build_vae(config)

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(artwork), (config.vae.train.batch,), generator=generator)
        pixels = augment(artwork.images[picked], config.image, generator)
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample(generator)).sample.float()
        return reconstruction_loss(decoded, pixels) + config.vae.kl_weight * _kl(posterior.mean, posterior.logvar)

    train(vae, loss, config.vae.train, seed=config.seed + 1, folder=folder, autocast=config.autocast)
    latents = encode(vae, augment(artwork.images, config.image, step_generator(config.seed, 0)))
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


def reconstruction_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Return L1 + L2 on pixels + L1 on their differences across and down (keeps thin strokes sharp)."""
    across = F.l1_loss(decoded.diff(dim=-1), pixels.diff(dim=-1))
    down = F.l1_loss(decoded.diff(dim=-2), pixels.diff(dim=-2))
    return F.l1_loss(decoded, pixels) + F.mse_loss(decoded, pixels) + across + down


def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """Return the KL divergence from the unit Gaussian, mean over latent elements."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return posterior means, not scaled: ``(n, 3, s, s) -> (n, 4, s/4, s/4)``."""
    return torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(256)])


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Return images after the round trip through the autoencoder: ``(n, 3, s, s)`` in and out, clamped to [-1, 1]."""
    return torch.cat([vae.decode(encode(vae, part)).sample.clamp(-1, 1) for part in pixels.split(256)])
