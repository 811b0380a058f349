"""What is trained on, encoded once: latents of images, states of texts; and the batches that are sampled of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from publisher.api import Captions, Concept, Model, References, StepContext
from publisher.api.choosing import captions_of, spread
from publisher.api.diffusion.latents import Noising, encode_images
from publisher.api.diffusion.process import process_of
from publisher.api.diffusion.text import Text, encode
from publisher.api.loading import load_component
from publisher_immunize.params import ImmunizeParams

HELD_OUT = 4
"""Every fourth image is kept from training, for the images per evaluation of ``schedule: auto``."""


@dataclass(frozen=True)
class Album:
    """Images of one concept."""

    concept: Concept
    latents: Tensor
    """``(n, c, h, w)`` float32."""
    captions: Mapping[Captions, tuple[str, ...]]
    """Kind -> one for each image."""

    def part(self, rows: Sequence[int]) -> Album:
        """Some of the images."""
        texts = {kind: tuple(lines[i] for i in rows) for kind, lines in self.captions.items()}
        return Album(self.concept, self.latents[list(rows)], texts)


@dataclass(frozen=True)
class Batch:
    """N groups of rows, one for each concept: first ``own`` rows of the concept, then kept ones."""

    groups: int
    """N."""
    own: int
    """Rows of a group that show its concept."""
    x: Tensor
    """``(N r, c, h, w)``"""
    noise: Tensor
    t: Tensor
    texts: tuple[str, ...]
    """N r."""

    @property
    def rows(self) -> int:
        """r, of one group."""
        return len(self.texts) // self.groups

    def own_texts(self, group: int) -> tuple[str, ...]:
        """Captions of a group's own rows, each once."""
        start = group * self.rows
        return tuple(dict.fromkeys(self.texts[start : start + self.own]))


@dataclass(frozen=True)
class Material:
    """Everything that a run reads."""

    concepts: tuple[Album, ...]
    kept: tuple[Album, ...]
    keep_texts: tuple[str, ...]
    """The empty prompt first: it is half of every guided image."""
    states: Mapping[str, Text]
    """Text -> a batch of one."""
    lengths: Mapping[str, int]
    """Text -> how many positions are its own, start and end token included."""
    noising: Noising

    def text(self, texts: Sequence[str]) -> Text:
        """A batch."""
        return Text.join([self.states[text] for text in texts])

    def tokens(self, text: str) -> Tensor:
        """``(m, D)``: the states of a text's own tokens, the end token's among them, without the start token's."""
        return self.states[text].states[0, 1 : self.lengths[text]]

    def captions(self) -> Tensor:
        """``(k, D)``: K, of the kept prompts and of the concepts' own prompts."""
        own = [text for album in self.concepts for text in album.concept.prompts]
        return torch.cat([self.tokens(text) for text in dict.fromkeys((*self.keep_texts, *own))])

    def batch(
        self, albums: Sequence[Album], kind: Captions, size: tuple[int, int], generator: torch.Generator
    ) -> Batch:
        """Sample one.

        Args:
            albums: one for each group.
            kind: of the own rows' captions.
            size: own rows, and kept rows beside them, of each group.
            generator: of all samples.
        """
        own, other = size if self.kept else (size[0], 0)
        parts, texts = [], []
        for album in albums:
            rows = _some(len(album.latents), own, generator)
            parts.append(album.latents[rows])
            texts += [album.captions[kind][i] for i in rows]
            for i in _some(len(self.kept), other, generator):
                (j,) = _some(len(self.kept[i].latents), 1, generator)
                parts.append(self.kept[i].latents[j : j + 1])
                texts.append(self.kept[i].captions["name"][j])
        x = torch.cat(parts)
        noise, t = self.noising.sample(x, generator)
        return Batch(len(albums), own, x, noise, t, tuple(texts))

    def keep_batch(self, size: int, generator: torch.Generator) -> Batch:
        """Kept images under their own prompts, every other one under any kept prompt, every eighth under the first."""
        chosen = [self.kept[i] for i in _some(len(self.kept), size, generator)]
        sampled = self.batch(chosen, "name", (1, 0), generator)
        others = _some(len(self.keep_texts), size, generator)
        texts = [
            self.keep_texts[0] if i % 8 == 7 else self.keep_texts[others[i]] if i % 2 else text
            for i, text in enumerate(sampled.texts)
        ]
        return Batch(1, size, sampled.x, sampled.noise, sampled.t, tuple(texts))


def gather(params: ImmunizeParams, concepts: Sequence[Concept], kept: Sequence[Concept], ctx: StepContext) -> Material:
    """Fetch and encode all of it; the encoders are let go.

    Raises:
        UsageError: images are missing, or a text is too long.
        ModelError: a part of the model cannot be loaded.
    """
    prompts = dict.fromkeys((*(p for concept in ctx.scope.keep for p in concept.prompts), *ctx.scope.keep_prompts))
    keep_texts = tuple(dict.fromkeys(("", *spread(tuple(prompts), params.keep_texts))))
    vae = load_component(ctx.model, "vae", ctx.device, torch.float32)
    counts = {one.id: params.images or 1 for one in concepts} | {one.id: params.keep_images or 1 for one in kept}
    shown = ctx.references_of(counts)
    tell = ctx.counted(sum(counts.values()), "images encoded")
    encoded = partial(encode_images, vae, tell=tell)
    albums = [_album(params, one, shown[one.id], encoded, turn) for turn, one in enumerate(concepts)]
    kept_albums = [_album(params, one, shown[one.id], encoded, -1 - turn) for turn, one in enumerate(kept)]
    texts = dict.fromkeys(
        line for album in (*albums, *kept_albums) for lines in album.captions.values() for line in lines
    )
    own = [prompt for concept in concepts for prompt in concept.prompts]
    distinct = tuple(dict.fromkeys((*keep_texts, *own, *texts)))
    tell = ctx.counted(len(distinct) * len(ctx.model.anatomy.text_encoders), "texts encoded")
    return Material(
        tuple(albums),
        tuple(kept_albums),
        keep_texts,
        encode(ctx.model, distinct, ctx.device, tell),
        lengths(ctx.model, distinct),
        Noising(process_of(ctx.model)),
    )


def lengths(model: Model, texts: Sequence[str]) -> dict[str, int]:
    """Text -> tokens with start and end, of the tokenizer that makes most of them."""
    parts = [load_component(model, part.tokenizer, "cpu", torch.float32) for part in model.anatomy.text_encoders]
    return {text: max(len(part(text).input_ids) for part in parts) for text in texts}


def split(albums: Sequence[Album]) -> tuple[tuple[Album, ...], tuple[Album, ...]]:
    """For training, and held out; an album of one image is in both."""
    train, held = [], []
    for album in albums:
        rows = range(len(album.latents))
        out = [i for i in rows if i % HELD_OUT == HELD_OUT - 1] or [rows[-1]]
        train.append(album.part([i for i in rows if i not in out] or list(rows)))
        held.append(album.part(out))
    return tuple(train), tuple(held)


def _album(
    params: ImmunizeParams, concept: Concept, found: References, encoded: Callable[[Tensor], Tensor], turn: int
) -> Album:
    rare = params.rare[turn % len(params.rare)]
    kinds = dict.fromkeys(("name", "rare", *params.captions))
    captions: dict[Captions, tuple[str, ...]] = {
        kind: captions_of(concept, kind, found.prompts, rare) for kind in kinds
    }
    return Album(concept, encoded(found.images), captions)


def _some(count: int, size: int, generator: torch.Generator) -> list[int]:
    """``size`` of ``count``, without repeats as long as there are enough."""
    rows: list[int] = []
    while len(rows) < size:
        rows += torch.randperm(count, generator=generator)[: size - len(rows)].tolist()
    return rows
