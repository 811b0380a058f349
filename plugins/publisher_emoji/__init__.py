"""The embedded model of `publisher`: a small real text-to-image model of emoji, its scorer and reference images.

Importing this package imports no torch; :mod:`publisher_emoji.generate` and :mod:`publisher_emoji.scorer` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from publisher.api import ModelSource, NoParams, Scorer, hookimpl
from publisher_emoji.captions import caption
from publisher_emoji.concepts import DATA, Object, Style, Vocabulary, vocabulary
from publisher_emoji.plugin import EmbeddedEmoji, EmbeddedReference, EmbeddedTransformer, EmojiScorer

__all__ = ["Object", "Style", "Vocabulary", "caption", "model_folder", "reference_images", "vocabulary"]


def model_folder(variant: str = "") -> Path:
    """Return the folder of an embedded model, for ``DiffusionPipeline.from_pretrained``.

    Args:
        variant: empty for ``embedded:emoji``, ``"dit"`` for ``embedded:emoji-dit``, ``"reference"`` for
            ``embedded:emoji-reference``.
    """
    return DATA / (variant or "model")


def reference_images(name: str) -> dict[str, Path]:
    """Return real renderings of an object: style name -> 64x64 PNG.

    Raises:
        KeyError: no such object; the message lists all names.
    """
    slug = vocabulary().object(name).slug
    paths = {style: DATA / "images" / style / f"{slug}.png" for style in vocabulary().style_names}
    return {style: path for style, path in paths.items() if path.exists()}


@hookimpl
def publisher_register_sources() -> Sequence[type[ModelSource]]:
    """Register the embedded models."""
    return (EmbeddedEmoji, EmbeddedReference, EmbeddedTransformer)


@hookimpl
def publisher_register_scorers() -> Sequence[type[Scorer[NoParams]]]:
    """Register ``emoji``."""
    return (EmojiScorer,)
