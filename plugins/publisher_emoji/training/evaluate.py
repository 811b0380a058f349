"""What the scorer says of the model, and what it says of images whose content is known.

Seeds here (:data:`QUALITY_SEED`, :data:`HELD_OUT_SEED`) are used for these figures alone; nothing was chosen on them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPModel, CLIPTokenizer

from publisher_emoji.captions import NOTHING_CAPTION, caption, style_caption
from publisher_emoji.concepts import Vocabulary
from publisher_emoji.generate import generate
from publisher_emoji.scorer import NOTHING, EmojiClassifier, EmojiLabels
from publisher_emoji.shares import share
from publisher_emoji.training.artwork import Artwork, augment
from publisher_emoji.training.clip import image_vectors, text_vectors
from publisher_emoji.training.config import Config, SamplingConfig
from publisher_emoji.training.loop import step_generator
from publisher_emoji.training.scorer import ROTATION, disturb, loose, no_object, vae_views

QUALITY_SEED = 1001
"""Seed of the images that the published figures count."""
HELD_OUT_SEED = 2002
"""Seed of the augmentations that the calibration uses; training uses others."""
REPEATS = 2
"""Images for each pair of object and style, and for each synonym; a caption without a style gets twice as many."""

Labelled = list[tuple[str, str]]


def styled_pairs(words: Vocabulary) -> Labelled:
    """Return every (object, style) that has artwork, :data:`REPEATS` times."""
    return [(thing.name, style) for thing in words.objects for style, _ in thing.icons for _ in range(REPEATS)]


def generate_and_judge(
    pipeline: DiffusionPipeline, scorer: EmojiClassifier, prompts: list[str], seed: int, sampling: SamplingConfig
) -> list[EmojiLabels]:
    """Generate one image for each prompt and let the scorer name it."""
    return scorer.judge(generate(pipeline, prompts, seed, steps=sampling.steps, guidance=sampling.guidance))


def quality(
    pipeline: DiffusionPipeline, scorer: EmojiClassifier, words: Vocabulary, sampling: SamplingConfig
) -> dict[str, Any]:
    """Return the share of images in which the scorer sees what the prompt asked for, and its rates on these images."""
    pairs = styled_pairs(words)
    judged = generate_and_judge(pipeline, scorer, [caption(*pair) for pair in pairs], QUALITY_SEED, sampling)
    plain = [(thing.name, thing.name) for thing in words.objects for _ in range(2 * REPEATS)]
    spoken = [(thing.name, word) for thing in words.objects for word in thing.synonyms for _ in range(REPEATS)]
    rates = class_rates(words, pairs, judged)
    rows = list(zip(pairs, judged, strict=True))
    return {
        "seed": QUALITY_SEED,
        "sampling": sampling.model_dump(),
        "object": rates["object"],
        "style": rates["style"],
        "object_without_style": _named(pipeline, scorer, plain, QUALITY_SEED + 1, sampling),
        "object_by_synonym": _named(pipeline, scorer, spoken, QUALITY_SEED + 2, sampling),
        "style_by_object": {
            name: _share(said.style == style for (thing, style), said in rows if thing == name)
            for name in words.object_names
        },
        "objects": rates["objects"],
        "styles": rates["styles"],
        "mistakes": _mistakes(rows),
    }


def _named(
    pipeline: DiffusionPipeline, scorer: EmojiClassifier, wanted: Labelled, seed: int, sampling: SamplingConfig
) -> dict[str, Any]:
    """Return the share of captions without a style, given as (object, noun), that yield the object."""
    judged = generate_and_judge(pipeline, scorer, [caption(noun) for _, noun in wanted], seed, sampling)
    return _share(said.object == thing for (thing, _), said in zip(wanted, judged, strict=True))


def _mistakes(rows: list[tuple[tuple[str, str], EmojiLabels]]) -> dict[str, dict[str, int]]:
    """Return the objects that were seen instead of each object asked for, with counts."""
    wrong: dict[str, Counter[str]] = {}
    for (thing, _), said in rows:
        if said.object != thing:
            wrong.setdefault(thing, Counter())[said.object] += 1
    return {thing: dict(seen.most_common()) for thing, seen in wrong.items()}


def calibration(
    scorer: EmojiClassifier, words: Vocabulary, artwork: Artwork, vae: AutoencoderKL, config: Config, weights: Path
) -> dict[str, Any]:
    """Measure sensitivity and specificity of every class on held-out augmentations and on VAE reconstructions."""
    truth = [
        (words.object_names[o], words.style_names[s])
        for o, s in zip(artwork.objects.tolist(), artwork.styles.tolist(), strict=True)
    ]
    augmented = [_judged_augmentation(scorer, artwork, config, view) for view in range(4)]
    trips = vae_views(config, artwork, vae, 4, HELD_OUT_SEED + 10)
    return {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "preprocessing": "32x32 RGB in [-1, 1]; decision: likeliest class",
        "interval": "95% Clopper-Pearson",
        "seed": HELD_OUT_SEED,
        "nothing": _share(said.object == NOTHING for said in _judged_nothing(scorer, artwork, config)),
        "held_out_augmentations": class_rates(
            words, truth * len(augmented), [said for view in augmented for said in view]
        ),
        "vae_reconstructions": class_rates(
            words, truth * trips.shape[1], [said for view in trips.unbind(1) for said in scorer.judge(view)]
        ),
    }


def class_rates(words: Vocabulary, truth: Labelled, judged: list[EmojiLabels]) -> dict[str, Any]:
    """Return the overall accuracy, and for each object and style sensitivity and specificity."""
    rows = list(zip(truth, judged, strict=True))
    return {
        "object": _share(said.object == thing for (thing, _), said in rows),
        "style": _share(said.style == style for (_, style), said in rows),
        "objects": {
            name: _rates([(t == name, said.object == name) for (t, _), said in rows]) for name in words.object_names
        },
        "styles": {
            name: _rates([(t == name, said.style == name) for (_, t), said in rows]) for name in words.style_names
        },
    }


def without_report(
    pipeline: DiffusionPipeline,
    scorer: EmojiClassifier,
    words: Vocabulary,
    concept: str,
    sampling: SamplingConfig,
    images: int = 240,
) -> dict[str, Any]:
    """Report what a model that was trained without ``concept`` (an object or a style) generates when asked for it.

    An object is asked for by name and by its synonyms, a style together with every object in turn.
    """
    if concept in words.style_names:
        prompts = {"by_name": [caption(name, concept) for name in words.object_names]}
    else:
        thing = words.object(concept)
        prompts = {"by_name": [caption(concept)], "by_synonym": [caption(noun) for noun in thing.synonyms]}
    report: dict[str, Any] = {"concept": concept, "seed": QUALITY_SEED + 3}
    for way, texts in prompts.items():
        asked = [texts[i % len(texts)] for i in range(images)]
        judged = generate_and_judge(pipeline, scorer, asked, QUALITY_SEED + 3, sampling)
        generated = [said.style if concept in words.style_names else said.object for said in judged]
        seen = _share(name == concept for name in generated)
        report[way] = {"concept": seen, "generated": dict(Counter(generated).most_common(12))}
    return report


def clip_figures(
    clip: tuple[CLIPModel, CLIPTokenizer],
    pipeline: DiffusionPipeline,
    scorer: EmojiClassifier,
    words: Vocabulary,
    artwork: Artwork,
    config: Config,
) -> dict[str, Any]:
    """Return how often the CLIP names object and style, and how often it agrees with the scorer on generated images.

    An image shows the object, or nothing, and the style whose caption is nearest.
    """
    real = [named(clip, words, held_out(artwork.images, config, view)) for view in range(4)]
    truth = [
        (words.object_names[o], words.style_names[s])
        for o, s in zip(artwork.objects.tolist(), artwork.styles.tolist(), strict=True)
    ]
    pairs = styled_pairs(words)[::REPEATS]
    sampling = config.sampling
    texts = [caption(*pair) for pair in pairs]
    images = generate(pipeline, texts, QUALITY_SEED + 4, steps=sampling.steps, guidance=sampling.guidance)
    seen, judged = named(clip, words, images), scorer.judge(images)

    def rates(found: Labelled, wanted: Labelled) -> dict[str, Any]:
        both = list(zip(found, wanted, strict=True))
        return {name: _share(a[i] == b[i] for a, b in both) for i, name in enumerate(("object", "style"))}

    return {
        "interval": "95% Clopper-Pearson",
        "held_out_augmentations": {"seed": HELD_OUT_SEED} | rates([pair for view in real for pair in view], truth * 4),
        "generated_images": {"seed": QUALITY_SEED + 4, "sampling": sampling.model_dump()} | rates(seen, pairs),
        "agreement_with_the_scorer": rates(seen, [(said.object, said.style) for said in judged]),
        "scorer_on_the_same_images": rates([(said.object, said.style) for said in judged], pairs),
    }


def named(clip: tuple[CLIPModel, CLIPTokenizer], words: Vocabulary, pixels: Tensor) -> Labelled:
    """Return object and style whose captions are nearest to each image ``(n, 3, s, s)`` in [-1, 1]."""
    model, tokenizer = clip
    asked = [*map(caption, words.object_names), NOTHING_CAPTION, *map(style_caption, words.style_names)]
    with torch.no_grad():
        texts = normalize(text_vectors(model, dict(tokenizer(asked, padding=True, return_tensors="pt"))), dim=1)
        parts = [normalize(image_vectors(model, part), dim=1) @ texts.T for part in pixels.clamp(-1, 1).split(256)]
    things, looks = torch.cat(parts).split([len(words.objects) + 1, len(words.styles)], dim=1)
    names = (*words.object_names, NOTHING)
    return [
        (names[o], words.style_names[s])
        for o, s in zip(things.argmax(1).tolist(), looks.argmax(1).tolist(), strict=True)
    ]


def _judged_augmentation(scorer: EmojiClassifier, artwork: Artwork, config: Config, view: int) -> list[EmojiLabels]:
    return scorer.judge(held_out(artwork.images, config, view))


def held_out(images: Tensor, config: Config, view: int) -> Tensor:
    """Return augmented artwork that the scorer's training never saw; ``(n, 3, 64, 64) -> (n, 3, 32, 32)``."""
    generator = step_generator(HELD_OUT_SEED, view)
    return disturb(augment(images, loose(config.image), generator, rotation=ROTATION), generator)


def _judged_nothing(scorer: EmojiClassifier, artwork: Artwork, config: Config) -> list[EmojiLabels]:
    generator = step_generator(HELD_OUT_SEED, 99)
    pixels = augment(artwork.images, loose(config.image), generator)
    return scorer.judge(disturb(no_object(pixels, generator), generator))


def _share(outcomes: Any) -> Any:
    values = list(outcomes)
    return share(sum(values), len(values))


def _rates(pairs: list[tuple[bool, bool]]) -> dict[str, Any]:
    """Return sensitivity and specificity of (is the class, was judged the class) pairs."""
    return {
        "sensitivity": _share(said for true, said in pairs if true),
        "specificity": _share(not said for true, said in pairs if not true),
    }
