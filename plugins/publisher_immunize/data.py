"""The training data, encoded once: latents of images, states of texts; and the batches that are sampled from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from publisher.api import Captions, Concept, Model, References, Scope, StepContext
from publisher.api.choosing import captions_of, spread
from publisher.api.diffusion.latents import Noising, encode_images
from publisher.api.diffusion.text import Text, encode
from publisher.api.loading import load_component
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.plan import kept_prompts, merges

SHARES = (0.5, 0.15, 0.15, 0.15, 0.05)
"""Captions of kept images with ``keep_captions: words``: their own, another kept prompt, none, their own with a rare
word in place of the name, a prompt of a concept that goes."""
ATTACKERS_WORD = "sks"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
HELD_OUT = 4
"""Number of images of which one is kept from training, for the probe of ``schedule: auto``."""


@dataclass(frozen=True)
class ConceptImages:
    """Images of one concept, as latents, with their captions in several kinds."""

    concept: Concept
    latents: Tensor
    """Latents ``(n, c, h, w)``, float32."""
    captions: Mapping[Captions, tuple[str, ...]]
    """Kind of captions -> one caption for each image."""
    renamed: tuple[tuple[str, ...], ...] = ()
    """Of words drawn at random: for each of them the captions ``rare``; empty: there is one word, in ``captions``."""

    def under(self, word: int) -> ConceptImages:
        """Return the images with captions that call the concept by a word drawn at random, by its index."""
        return replace(self, captions={**self.captions, "rare": self.renamed[word]}) if self.renamed else self

    def part(self, rows: Sequence[int]) -> ConceptImages:
        """Return some of the images, by row."""
        texts = {kind: tuple(lines[i] for i in rows) for kind, lines in self.captions.items()}
        renamed = tuple(tuple(lines[i] for i in rows) for lines in self.renamed)
        return ConceptImages(self.concept, self.latents[list(rows)], texts, renamed)


@dataclass(frozen=True)
class ConceptBatch:
    """N groups of rows, one for each concept: first ``own`` rows of the concept, then kept ones."""

    groups: int
    """Number of groups N."""
    own: int
    """Number of rows of a group that show its concept."""
    x: Tensor
    """Latents ``(N r, c, h, w)``."""
    noise: Tensor
    """Noise ``(N r, c, h, w)``."""
    t: Tensor
    """Timesteps ``(N r,)``."""
    texts: tuple[str, ...]
    """Captions, N r of them."""

    @property
    def rows(self) -> int:
        """Number of rows r of one group."""
        return len(self.texts) // self.groups

    def own_texts(self, group: int) -> tuple[str, ...]:
        """Return the captions of a group's own rows, each once."""
        start = group * self.rows
        return tuple(dict.fromkeys(self.texts[start : start + self.own]))


@dataclass(frozen=True)
class ImmunizeData:
    """All images and texts that an immunisation reads."""

    concepts: tuple[ConceptImages, ...]
    """Images of each concept to immunise against."""
    kept: tuple[ConceptImages, ...]
    """Images of each concept to keep."""
    keep_texts: tuple[str, ...]
    """Prompts to keep, the empty one first: it is half of every guided image."""
    states: Mapping[str, Text]
    """Text -> its states, a batch of one."""
    lengths: Mapping[str, int]
    """Text -> number of positions that are its own, start and end token included; empty where nothing merges."""
    noising: Noising
    """Noise process of the model."""
    mixed: bool = False
    """Whether kept images of :meth:`keep_batch` have captions of all kinds (:data:`SHARES`)."""

    def text(self, texts: Sequence[str]) -> Text:
        """Return the states of texts, as a batch."""
        return Text.join([self.states[text] for text in texts])

    def tokens(self, text: str) -> Tensor:
        """Return the states of a text's own tokens, ``(m, D)``: the end token is among them, the start token is not."""
        return self.states[text].states[0, 1 : self.lengths[text]]

    def captions(self) -> Tensor:
        """Return K ``(k, D)`` of the merge: tokens of the kept prompts and of the concepts' own prompts."""
        own = [text for one in self.concepts for text in one.concept.prompts]
        return torch.cat([self.tokens(text) for text in dict.fromkeys((*self.keep_texts, *own))])

    def batch(
        self, shown: Sequence[ConceptImages], kind: Captions, size: tuple[int, int], generator: torch.Generator
    ) -> ConceptBatch:
        """Sample a batch.

        Args:
            shown: images of the concept of each group.
            kind: kind of the captions of own rows.
            size: own rows and kept rows of each group.
            generator: source of all samples.
        """
        own, other = size if self.kept else (size[0], 0)
        parts, texts = [], []
        for images in shown:
            rows = _some(len(images.latents), own, generator)
            parts.append(images.latents[rows])
            texts += [images.captions[kind][i] for i in rows]
            for i in _some(len(self.kept), other, generator):
                (j,) = _some(len(self.kept[i].latents), 1, generator)
                parts.append(self.kept[i].latents[j : j + 1])
                texts.append(self.kept[i].captions["name"][j])
        x = torch.cat(parts)
        noise, t = self.noising.sample(x, generator)
        return ConceptBatch(len(shown), own, x, noise, t, tuple(texts))

    def keep_batch(self, size: int, generator: torch.Generator) -> ConceptBatch:
        """Sample kept images: half under their own prompts, an eighth under none, the rest under any kept one.

        With ``mixed`` captions of all kinds stand under them.
        """
        chosen = [self.kept[i] for i in _some(len(self.kept), size, generator)]
        if self.mixed:
            return self._mixed_batch(chosen, generator)
        sampled = self.batch(chosen, "name", (1, 0), generator)
        others = _some(len(self.keep_texts), size, generator)
        texts = [
            self.keep_texts[0] if i % 8 == 7 else self.keep_texts[others[i]] if i % 2 else text
            for i, text in enumerate(sampled.texts)
        ]
        return ConceptBatch(1, size, sampled.x, sampled.noise, sampled.t, tuple(texts))

    def _mixed_batch(self, chosen: Sequence[ConceptImages], generator: torch.Generator) -> ConceptBatch:
        gone = [text for one in self.concepts for text in one.concept.prompts]
        kinds = torch.multinomial(torch.tensor(SHARES), len(chosen), replacement=True, generator=generator).tolist()
        parts, texts = [], []
        for images, kind in zip(chosen, kinds, strict=True):
            (row,) = _some(len(images.latents), 1, generator)
            parts.append(images.latents[row : row + 1])
            own, renamed = images.captions["name"][row], images.captions["rare"][row]
            other, lost = (pool[_some(len(pool), 1, generator)[0]] for pool in (self.keep_texts, gone))
            texts.append((own, other, self.keep_texts[0], renamed, lost)[kind])
        x = torch.cat(parts)
        noise, t = self.noising.sample(x, generator)
        return ConceptBatch(1, len(chosen), x, noise, t, tuple(texts))


def gather(
    params: ImmunizeParams, concepts: Sequence[Concept], kept: Sequence[Concept], ctx: StepContext
) -> ImmunizeData:
    """Fetch and encode images and texts; the encoders are dropped afterwards.

    Raises:
        UsageError: images are missing, or a text is too long.
        ModelError: a part of the model cannot be loaded.
    """
    prompts = kept_prompts(ctx.scope)
    keep_texts = tuple(dict.fromkeys(("", *spread(prompts, params.keep_texts))))
    vae = load_component(ctx.model, "vae", ctx.device, torch.float32)
    counts = {one.id: params.images or 1 for one in concepts} | {one.id: params.keep_images or 1 for one in kept}
    shown = ctx.references_of(counts)
    tell = ctx.counted(sum(counts.values()), "images encoded")
    encoded = partial(encode_images, vae, tell=tell)
    rare = (
        rare_words(params.rare, ctx.generator("rare words"), _texts_of(ctx.scope))
        if isinstance(params.rare, int)
        else params.rare
    )
    found = [_concept_images(params, one, shown[one.id], encoded, (rare, turn)) for turn, one in enumerate(concepts)]
    found_kept = [
        _concept_images(params, one, shown[one.id], encoded, (rare, -1 - turn)) for turn, one in enumerate(kept)
    ]
    if isinstance(params.rare, int):
        found = [_renamed(images, shown[images.concept.id], rare) for images in found]
    texts = dict.fromkeys(
        line
        for images in (*found, *found_kept)
        for lines in (*images.captions.values(), *images.renamed)
        for line in lines
    )
    own = [prompt for concept in concepts for prompt in concept.prompts]
    distinct = tuple(dict.fromkeys((*keep_texts, *own, *texts)))
    tell = ctx.counted(len(distinct) * len(ctx.model.anatomy.text_encoders), "texts encoded")
    return ImmunizeData(
        tuple(found),
        tuple(found_kept),
        keep_texts,
        encode(ctx.model, distinct, ctx.device, tell),
        lengths(ctx.model, distinct) if merges(ctx.model.anatomy) else {},
        Noising.for_model(ctx.model),
        params.keep_captions == "words",
    )


def rare_words(count: int, generator: torch.Generator, texts: Sequence[str]) -> tuple[str, ...]:
    """Sample words of 3 to 5 letters, each once: none that stands in one of the texts, and not the attacks' own.

    Args:
        count: number of words.
        generator: source of the letters.
        texts: prompts, names and synonyms of the manifest.
    """
    taken = {ATTACKERS_WORD, *(word for text in texts for word in re.findall(r"\w+", text.lower()))}
    words: dict[str, None] = {}
    while len(words) < count:
        size, *letters = torch.randint(len(LETTERS), (6,), generator=generator).tolist()
        word = "".join(LETTERS[i] for i in letters[: 3 + size % 3])
        if word not in taken:
            words[word] = None
    return tuple(words)


def lengths(model: Model, texts: Sequence[str]) -> dict[str, int]:
    """Return the number of tokens of each text, start and end included, by the tokenizer that makes most of them."""
    parts = [load_component(model, part.tokenizer, "cpu", torch.float32) for part in model.anatomy.text_encoders]
    return {text: max(len(part(text).input_ids) for part in parts) for text in texts}


def split(shown: Sequence[ConceptImages]) -> tuple[tuple[ConceptImages, ...], tuple[ConceptImages, ...]]:
    """Split each concept's images into those for training and those held out; a single image is in both."""
    train, held = [], []
    for images in shown:
        rows = range(len(images.latents))
        out = [i for i in rows if i % HELD_OUT == HELD_OUT - 1] or [rows[-1]]
        train.append(images.part([i for i in rows if i not in out] or list(rows)))
        held.append(images.part(out))
    return tuple(train), tuple(held)


def _texts_of(scope: Scope) -> tuple[str, ...]:
    """Return names, synonyms and prompts of all that goes and stays."""
    concepts = (*scope.concepts, *scope.keep)
    said = (text for concept in concepts for text in (concept.name, *concept.synonyms, *concept.prompts))
    return (*said, *scope.keep_prompts)


def _concept_images(
    params: ImmunizeParams,
    concept: Concept,
    found: References,
    encoded: Callable[[Tensor], Tensor],
    word: tuple[Sequence[str], int],
) -> ConceptImages:
    words, turn = word
    rare = words[turn % len(words)]
    kinds = dict.fromkeys(("name", "rare", *params.caption_shares))
    captions: dict[Captions, tuple[str, ...]] = {
        kind: captions_of(concept, kind, found.prompts, rare) for kind in kinds
    }
    return ConceptImages(concept, encoded(found.images), captions)


def _renamed(images: ConceptImages, found: References, words: Sequence[str]) -> ConceptImages:
    lines = tuple(captions_of(images.concept, "rare", found.prompts, word) for word in words)
    return replace(images, renamed=lines)


def _some(count: int, size: int, generator: torch.Generator) -> list[int]:
    """Sample ``size`` rows of ``count``, without repeats as long as there are enough."""
    rows: list[int] = []
    while len(rows) < size:
        rows += torch.randperm(count, generator=generator)[: size - len(rows)].tolist()
    return rows
