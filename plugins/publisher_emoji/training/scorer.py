"""Train the independent scorer, on real renderings only."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from publisher_emoji.concepts import Vocabulary
from publisher_emoji.scorer import EmojiClassifier, ScorerNet
from publisher_emoji.training.artwork import Artwork, augment
from publisher_emoji.training.config import Config, ImageConfig
from publisher_emoji.training.loop import step_generator, train
from publisher_emoji.training.vae import reconstruct

ROTATION = 12.0
"""Largest angle of the scorer's augmentation, in degrees."""
VAE_VIEWS = 8
"""Round trips through the autoencoder that are prepared for each image."""


def train_scorer(
    config: Config, words: Vocabulary, artwork: Artwork, vae: AutoencoderKL, folder: Path
) -> EmojiClassifier:
    """Train from the seed. A third of each batch went through the autoencoder; an eighth shows no object."""
    torch.manual_seed(config.seed + 20)
    net = ScorerNet(config.scorer.channels, len(words.objects), len(words.styles))
    round_trips = vae_views(config, artwork, vae, VAE_VIEWS, config.seed + 21)
    batch = config.scorer.train.batch
    none, through_vae = batch // 8, batch // 3
    looser = loose(config.image)

    def loss(generator: torch.Generator) -> Tensor:
        picked = torch.randint(len(artwork), (batch,), generator=generator)
        pixels = augment(artwork.images[picked], looser, generator, rotation=ROTATION)
        views = torch.randint(VAE_VIEWS, (through_vae,), generator=generator)
        pixels[:through_vae] = round_trips[picked[:through_vae], views]
        pixels[-none:] = no_object(pixels[-none:], generator)
        objects = artwork.objects[picked].clone()
        objects[-none:] = len(words.objects)
        object_logits, style_logits = net(disturb(pixels, generator))
        object_loss = F.cross_entropy(object_logits.float(), objects, label_smoothing=0.05)
        style_loss = F.cross_entropy(style_logits[:-none].float(), artwork.styles[picked[:-none]], label_smoothing=0.05)
        return object_loss + style_loss

    train(net, loss, config.scorer.train, seed=config.seed + 22, folder=folder, autocast=config.autocast)
    return EmojiClassifier(net, words.object_names, words.style_names)


def save_scorer(scorer: EmojiClassifier, config: Config, folder: Path) -> None:
    """Write ``scorer.safetensors`` and ``config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(scorer.net.state_dict(), folder / "scorer.safetensors")
    facts = {"channels": config.scorer.channels, "objects": scorer.objects[:-1], "styles": scorer.styles}
    (folder / "config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def loose(image: ImageConfig) -> ImageConfig:
    """Return the scorer's augmentation, wider than the generator's: it must not judge position or size."""
    return image.model_copy(update={"scale": (0.78, 1.08), "shift": 3.0})


def vae_views(config: Config, artwork: Artwork, vae: AutoencoderKL, views: int, seed: int) -> Tensor:
    """Return augmented renderings after a round trip through the autoencoder: ``(images, views, 3, s, s)``."""
    trips = [
        reconstruct(vae, augment(artwork.images, loose(config.image), step_generator(seed, view), rotation=ROTATION))
        for view in range(views)
    ]
    return torch.stack(trips, 1)


def disturb(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast, blur one in three, add noise up to 0.12; ``(b, 3, s, s)`` in and out."""
    b = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(b, 1, 1, 1).uniform_(low, high, generator=generator)

    pixels = 1 - (1 - pixels) * uniform(0.9, 1.1) + uniform(-0.06, 0.06)
    blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.where(uniform(0, 1) < 1 / 3, torch.lerp(pixels, blurred, uniform(0.3, 1.0)), pixels)
    noise = torch.randn(pixels.shape, generator=generator) * uniform(-0.12, 0.12).clamp(min=0)
    return (pixels + noise).clamp(-1.2, 1.2)


def no_object(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Make images that show nothing: scrambled patches, means of several images, flat colours, smooth noise."""
    b, _, s, _ = pixels.shape
    quarter = s // 4
    patches = F.unfold(pixels, quarter, stride=quarter)
    order = torch.rand(b, 1, patches.shape[2], generator=generator).argsort(-1).expand_as(patches)
    scrambled = F.fold(patches.gather(2, order), (s, s), quarter, stride=quarter)
    mean = (pixels + pixels.roll(1, 0) + pixels.roll(2, 0) + pixels.roll(3, 0)) / 4
    flat = torch.rand(b, 3, 1, 1, generator=generator).mul(2).sub(1).expand_as(pixels)
    flat = torch.where(torch.rand(b, 1, 1, 1, generator=generator) < 0.5, torch.ones_like(flat), flat)
    coarse = torch.randn(b, 3, 4, 4, generator=generator) * 0.7
    smooth = F.interpolate(coarse, (s, s), mode="bilinear").clamp(-1, 1)
    kinds = torch.stack([scrambled, scrambled, mean, flat, smooth])
    which = torch.randint(len(kinds), (b,), generator=generator)
    return kinds[which, torch.arange(b)]
