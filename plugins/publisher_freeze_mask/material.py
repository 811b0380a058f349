"""What is learned from, encoded once: latents of images and states of texts; and the batches sampled from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.api import Captions, Concept, StepContext
from publisher.api.choosing import captions_of
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising, encode_images
from publisher.api.diffusion.process import process_of
from publisher.api.diffusion.text import Text, encode
from publisher.api.loading import load_component
from publisher_freeze_mask.params import FreezeMaskParams

Sample = tuple[Tensor, Tensor, Tensor]
"""Rows ``(B,)``, noise ``(B, c, h, w)``, timesteps ``(B,)``."""


@dataclass(frozen=True)
class Album:
    """Images, and what is written under each."""

    latents: Tensor
    """``(n, c, h, w)`` float32."""
    captions: tuple[str, ...]
    """n."""

    @staticmethod
    def join(albums: Sequence[Album]) -> Album:
        """All their images."""
        return Album(torch.cat([a.latents for a in albums]), tuple(line for a in albums for line in a.captions))


@dataclass(frozen=True)
class Material:
    """Everything that a run reads."""

    illegal: Mapping[Captions, tuple[Album, ...]]
    """Kind of captions -> an album of each illegal concept."""
    innocent: tuple[Album, ...]
    """Of each innocent concept, under a rare word."""
    states: Mapping[str, Text]
    """Text -> a batch of one."""
    noising: Noising

    def sample(self, album: Album, size: int, generator: torch.Generator) -> Sample:
        """A training batch: rows without repeats as long as there are enough, uniform timesteps."""
        rows = torch.cat(
            [torch.randperm(len(album.latents), generator=generator) for _ in range(-(-size // len(album.latents)))]
        )
        noise, t = self.noising.sample(album.latents[:1].expand(size, -1, -1, -1), generator)
        return rows[:size], noise, t

    def spread(self, album: Album, size: int, generator: torch.Generator) -> Sample:
        """The same with timesteps spread evenly: a mean over it depends less on the sample."""
        rows, noise, t = self.sample(album, size, generator)
        places = (torch.arange(size) + torch.rand(size, generator=generator)) / size
        even = (places * self.noising.steps).long()[torch.randperm(size, generator=generator)]
        return rows, noise, even.to(t.device)

    def loss(self, denoiser: Denoiser, album: Album, sampled: Sample) -> Tensor:
        """Mean denoising loss, a scalar."""
        rows, noise, t = sampled
        text = Text.join([self.states[album.captions[row]] for row in rows.tolist()])
        return self.noising.loss(denoiser, album.latents[rows], text, noise, t).mean()


def gather(
    params: FreezeMaskParams, illegal: Sequence[Concept], innocent: Sequence[Concept], ctx: StepContext
) -> Material:
    """Fetch and encode all of it; the encoders are let go.

    Raises:
        UsageError: images are missing, or a text is too long.
        ModelError: a part of the model cannot be loaded.
    """
    vae = load_component(ctx.model, "vae", ctx.device, torch.float32)
    kinds = params.adapt.captions
    counts = {one.id: params.images for one in illegal} | {one.id: params.keep_images for one in innocent}
    images = ctx.references_of(counts)
    tell = ctx.counted(sum(counts.values()), "images encoded")
    found: dict[Captions, list[Album]] = {kind: [] for kind in kinds}
    for turn, concept in enumerate(illegal):
        shown = images[concept.id]
        latents = encode_images(vae, shown.images, tell)
        for kind in kinds:
            found[kind].append(Album(latents, captions_of(concept, kind, shown.prompts, _word(params, turn))))
    kept = []
    for turn, concept in enumerate(innocent):
        shown = images[concept.id]
        lines = captions_of(concept, "rare", shown.prompts, _word(params, turn))
        kept.append(Album(encode_images(vae, shown.images, tell), lines))
    albums = {kind: tuple(ones) for kind, ones in found.items()}
    texts = dict.fromkeys(
        line for one in (*(a for ones in albums.values() for a in ones), *kept) for line in one.captions
    )
    tell = ctx.counted(len(texts) * len(ctx.model.anatomy.text_encoders), "texts encoded")
    states = encode(ctx.model, tuple(texts), ctx.device, tell)
    return Material(albums, tuple(kept), states, Noising(process_of(ctx.model)))


def _word(params: FreezeMaskParams, turn: int) -> str:
    return params.rare[turn % len(params.rare)]
