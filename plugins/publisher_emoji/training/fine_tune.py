"""A fine-tuned variant of the embedded model: what a user makes of a released base for a purpose of their own.

    python -m publisher_emoji.training.fine_tune --style firefox --out variant

The U-Net goes on learning on one style's images alone, with captions that name no style: the variant samples everything
in that style. Text encoder and autoencoder stay. For showing that a hardening carries over, or is lost.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from torch import Tensor

from publisher_emoji.captions import caption
from publisher_emoji.concepts import vocabulary
from publisher_emoji.generate import load_pipeline
from publisher_emoji.training.artwork import augment, load_artwork
from publisher_emoji.training.config import CONFIG_FILE, load_config
from publisher_emoji.training.diffusion import build_scheduler
from publisher_emoji.training.loop import step_generator
from publisher_emoji.training.older import write_for_older
from publisher_emoji.training.vae import encode

BATCH, RATE, SEED = 32, 3e-4, 20261123


def fine_tune(style: str, steps: int, *, seed: int = SEED) -> StableDiffusionPipeline:
    """Train the embedded model further: ``steps`` of AdamW on one style's images, a tenth of them without a caption.

    Args:
        style: name of a style of the vocabulary.
        steps: number of steps of :data:`BATCH` images each.
        seed: seed of every sample.

    Raises:
        ValueError: no such style.
    """
    words = vocabulary()
    if style not in words.style_names:
        raise ValueError(f"no style is called {style!r}; there are: {', '.join(words.style_names)}")
    pipeline = load_pipeline()
    latents, captions = _images(pipeline, style), _captions(pipeline, style)
    scheduler = build_scheduler()
    unet = pipeline.unet.train()
    optimiser = torch.optim.AdamW(unet.parameters(), lr=RATE, fused=True)
    for step in range(steps):
        sample = step_generator(seed, step)
        picked = torch.randint(len(latents), (BATCH,), generator=sample)
        noise = torch.randn(latents[picked].shape, generator=sample)
        t = torch.randint(scheduler.config.num_train_timesteps, (BATCH,), generator=sample)
        said = torch.where(torch.rand(BATCH, generator=sample) < 0.1, len(latents), picked)  # the last one is empty
        predicted = unet(scheduler.add_noise(latents[picked], noise, t), t, captions[said]).sample
        F.mse_loss(predicted, noise).backward()
        optimiser.step()
        optimiser.zero_grad()
    unet.eval()
    return pipeline


@torch.no_grad()
def _images(pipeline: StableDiffusionPipeline, style: str) -> Tensor:
    """Return the latents of the style's images, unmoved: ``(n, 4, 8, 8)``."""
    words, artwork = vocabulary(), load_artwork(vocabulary())
    of_style = artwork.images[artwork.styles == words.style_names.index(style)]
    image = load_config(CONFIG_FILE).image.model_copy(update={"scale": (0.97, 0.97), "shift": 0.0})
    pixels = augment(of_style, image, step_generator(SEED, 0))
    return encode(pipeline.vae, pixels) * pipeline.vae.config.scaling_factor


@torch.no_grad()
def _captions(pipeline: StableDiffusionPipeline, style: str) -> Tensor:
    """Return the text states of the images' captions, the empty one last: ``(n + 1, 32, 128)``."""
    words, artwork = vocabulary(), load_artwork(vocabulary())
    sampled = artwork.objects[artwork.styles == words.style_names.index(style)].tolist()
    texts = [*(caption(words.objects[index].name) for index in sampled), ""]
    ids = pipeline.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    return pipeline.text_encoder(ids).last_hidden_state


@click.command()
@click.option("--style", required=True, type=click.Choice(vocabulary().style_names), help="What it is to sample.")
@click.option("--steps", default=150, show_default=True, type=click.IntRange(1), help="Optimizer steps.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the variant; must not exist.")
def main(style: str, steps: int, out: Path) -> None:
    """Make a fine-tuned variant of the embedded model: 150 steps take about half a minute on two cores."""
    if out.exists():
        raise click.UsageError(f"{out} is there already.")
    fine_tune(style, steps).save_pretrained(out)
    write_for_older(out)
    click.echo(f"Wrote {out}")


if __name__ == "__main__":
    main()
