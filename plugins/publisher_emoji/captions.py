"""Captions of the embedded model: what its text encoder was trained on, and what prompts should look like."""

from __future__ import annotations

from publisher_emoji.concepts import Vocabulary


def caption(noun: str, style: str | None = None) -> str:
    """Return a caption such as ``"a pizza emoji in noto style"``, or ``"a pizza emoji"`` without a style."""
    article = "an" if noun[0] in "aeiou" else "a"
    return f"{article} {noun} emoji" + (f" in {style} style" if style else "")


NOTHING_CAPTION = "nothing"
"""What the small CLIP calls an image that shows no object (blank, noise, scrambled)."""


def style_caption(style: str) -> str:
    """Return a caption that names the style alone, such as ``"an emoji in noto style"``."""
    return f"an emoji in {style} style"


def all_captions(words: Vocabulary) -> list[str]:
    """Return every caption that training can use, the empty one first, in a fixed order without repeats."""
    found = {"": None}
    for thing in words.objects:
        for noun in (thing.name, *thing.synonyms):
            for style in (None, *words.style_names):
                found[caption(noun, style)] = None
    return list(found)
