"""Flow matching on latents of augmented reference images: denoiser, second CLIP and T5 together."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusion3Pipeline
from torch import Tensor, nn

from publisher_emoji.concepts import Vocabulary
from publisher_emoji.training.artwork import Artwork
from publisher_emoji.training.diffusion import Captions, latent_views
from publisher_emoji.training.loop import train
from publisher_emoji.training.transformer.recipe import Recipe

TRAINED = ("transformer", "text_encoder_2", "text_encoder_3")
"""Components that are trained; the first CLIP and the autoencoder are the embedded model's."""


def train_transformer(
    recipe: Recipe, words: Vocabulary, artwork: Artwork, pipeline: StableDiffusion3Pipeline, folder: Path
) -> None:
    """Train the pipeline in place, so that afterwards it holds averaged weights; see :func:`loss_of`.

    Args:
        recipe: to follow.
        words: of the captions.
        artwork: to train on.
        pipeline: untrained, as :func:`~publisher_emoji.training.transformer.networks.build_pipeline` returns it.
        folder: of the checkpoints; one that is there is gone on from.
    """
    captions = Captions(words, artwork, recipe)
    modules = nn.ModuleDict({name: getattr(pipeline, name) for name in TRAINED})
    pipeline.text_encoder.requires_grad_(requires_grad=False)
    for index, phase in enumerate(recipe.phases):
        seed = recipe.seed + 100 * index
        latents = latent_views(recipe.views, phase.image, artwork, pipeline.vae, seed + 3)
        train(
            modules,
            partial(loss_of, pipeline, latents, captions, phase.train.batch),
            phase.train,
            seed=seed + 2,
            folder=folder / f"transformer-{index + 1}",
            autocast=recipe.autocast,
        )


def loss_of(
    pipeline: StableDiffusion3Pipeline, latents: Tensor, captions: Captions, batch: int, generator: torch.Generator
) -> Tensor:
    """Return the loss of one batch: squared error of the velocity, noise minus image.

    The noise level s is logit-normal and every level weighs the same (Esser et al. 2024, arXiv 2403.03206, 3.1).

    Args:
        pipeline: with the networks.
        latents: ``(images, views, channels, h, w)``.
        captions: of the images.
        batch: number of images.
        generator: of everything that is random.
    """
    images, views = latents.shape[:2]
    picked = torch.randint(images, (batch,), generator=generator)
    clean = latents[picked, torch.randint(views, (batch,), generator=generator)]
    noise = torch.randn(clean.shape, generator=generator)
    level = torch.randn(batch, generator=generator).sigmoid()
    s = level[:, None, None, None]
    texts = captions.texts(picked, generator)
    states, _, pooled, _ = pipeline.encode_prompt(
        texts,
        texts,
        texts,
        device=torch.device("cpu"),
        do_classifier_free_guidance=False,
        max_sequence_length=pipeline.tokenizer_3.model_max_length,
    )
    predicted = pipeline.transformer((1 - s) * clean + s * noise, states, pooled, 1000 * level, return_dict=False)[0]
    return F.mse_loss(predicted.float(), noise - clean)
