"""The training data, encoded once: latents of images and states of texts; and the batches sampled from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.api import Captions, Concept, StepContext
from publisher.api.choosing import captions_of
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising, encode_images
from publisher.api.diffusion.text import Text, encode
from publisher.api.loading import load_component
from publisher_freeze_mask.params import FreezeMaskParams

Sample = tuple[Tensor, Tensor, Tensor]
"""Rows ``(B,)``, noise ``(B, c, h, w)``, timesteps ``(B,)``."""


@dataclass(frozen=True)
class CaptionedImages:
    """Images of one or several concepts, with a caption under each."""

    latents: Tensor
    """Latents ``(n, c, h, w)``, float32."""
    captions: tuple[str, ...]
    """Captions, one for each image."""

    @staticmethod
    def join(several: Sequence[CaptionedImages]) -> CaptionedImages:
        """Return all their images as one."""
        return CaptionedImages(
            torch.cat([one.latents for one in several]), tuple(line for one in several for line in one.captions)
        )


@dataclass(frozen=True)
class MaskData:
    """All images and texts that masks are learned from."""

    illegal: Mapping[Captions, tuple[CaptionedImages, ...]]
    """Kind of captions -> images of each illegal concept."""
    innocent: tuple[CaptionedImages, ...]
    """Images of each innocent concept, under a rare word."""
    states: Mapping[str, Text]
    """Text -> its states, a batch of one."""
    noising: Noising
    """Noise process of the model."""

    def sample(self, images: CaptionedImages, size: int, generator: torch.Generator) -> Sample:
        """Sample a training batch: rows without repeats as long as there are enough, uniform timesteps."""
        rows = torch.cat(
            [torch.randperm(len(images.latents), generator=generator) for _ in range(-(-size // len(images.latents)))]
        )
        noise, t = self.noising.sample(images.latents[:1].expand(size, -1, -1, -1), generator)
        return rows[:size], noise, t

    def spread(self, images: CaptionedImages, size: int, generator: torch.Generator) -> Sample:
        """Sample a batch with timesteps spread evenly: a mean over it depends less on the sample."""
        rows, noise, t = self.sample(images, size, generator)
        places = (torch.arange(size) + torch.rand(size, generator=generator)) / size
        even = self.noising.at(places)[torch.randperm(size, generator=generator)]
        return rows, noise, even.to(t.device)

    def loss(self, denoiser: Denoiser, images: CaptionedImages, sampled: Sample) -> Tensor:
        """Return the mean denoising loss, a scalar."""
        rows, noise, t = sampled
        text = Text.join([self.states[images.captions[row]] for row in rows.tolist()])
        return self.noising.loss(denoiser, images.latents[rows], text, noise, t).mean()


def gather(
    params: FreezeMaskParams, illegal: Sequence[Concept], innocent: Sequence[Concept], ctx: StepContext
) -> MaskData:
    """Fetch and encode images and texts; the encoders are dropped afterwards.

    Raises:
        UsageError: images are missing, or a text is too long.
        ModelError: a part of the model cannot be loaded.
    """
    vae = load_component(ctx.model, "vae", ctx.device, torch.float32)
    kinds = params.adapt.captions
    counts = {one.id: params.images for one in illegal} | {one.id: params.keep_images for one in innocent}
    references = ctx.references_of(counts)
    tell = ctx.counted(sum(counts.values()), "images encoded")
    found: dict[Captions, list[CaptionedImages]] = {kind: [] for kind in kinds}
    for turn, concept in enumerate(illegal):
        shown = references[concept.id]
        latents = encode_images(vae, shown.images, tell)
        for kind in kinds:
            found[kind].append(CaptionedImages(latents, captions_of(concept, kind, shown.prompts, _word(params, turn))))
    kept = []
    for turn, concept in enumerate(innocent):
        shown = references[concept.id]
        lines = captions_of(concept, "rare", shown.prompts, _word(params, turn))
        kept.append(CaptionedImages(encode_images(vae, shown.images, tell), lines))
    illegal_images = {kind: tuple(ones) for kind, ones in found.items()}
    texts = dict.fromkeys(
        line for one in (*(a for ones in illegal_images.values() for a in ones), *kept) for line in one.captions
    )
    tell = ctx.counted(len(texts) * len(ctx.model.anatomy.text_encoders), "texts encoded")
    states = encode(ctx.model, tuple(texts), ctx.device, tell)
    return MaskData(illegal_images, tuple(kept), states, Noising.for_model(ctx.model))


def _word(params: FreezeMaskParams, turn: int) -> str:
    return params.rare[turn % len(params.rare)]
