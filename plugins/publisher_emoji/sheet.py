"""Images side by side: the grid in the documentation, and what the quickstart shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from publisher_emoji.captions import caption
from publisher_emoji.concepts import Vocabulary
from publisher_emoji.generate import generate

GAP = 2
LABEL = 96
HEADER = 16


def to_image(pixels: Tensor) -> Image.Image:
    """Turn ``(3, h, w)`` in [-1, 1] into an RGB picture."""
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def grid(rows: list[tuple[str, Tensor]], *, header: Sequence[str] = (), zoom: int = 2) -> Image.Image:
    """Arrange one labelled row for each ``(label, (n, 3, h, w))`` under the columns' names, enlarged ``zoom`` times."""
    side = rows[0][1].shape[-1] * zoom + GAP
    top = HEADER if header else 0
    width = LABEL + side * max(len(images) for _, images in rows)
    sheet = Image.new("RGB", (width, top + side * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for x, name in enumerate(header):
        pen.text((LABEL + x * side + 4, 2), name, fill="black")
    for y, (label, images) in enumerate(rows):
        pen.text((4, top + y * side + side // 2 - 6), label, fill="black")
        for x, pixels in enumerate(images):
            picture = to_image(pixels)
            sheet.paste(
                picture.resize((picture.width * zoom, picture.height * zoom)), (LABEL + x * side, top + y * side)
            )
    return sheet


def contact_sheet(pipeline: Any, words: Vocabulary, seed: int, columns: int = 4, *, steps: int = 20) -> Image.Image:
    """Arrange every object in every style, one image each, in ``columns`` blocks side by side."""
    styles = words.style_names
    prompts = [caption(thing.name, style) for thing in words.objects for style in styles]
    images = generate(pipeline, prompts, seed, steps=steps).unflatten(0, (len(words.objects), len(styles)))
    rows = [(thing.name, part) for thing, part in zip(words.objects, images, strict=True)]
    per = -(-len(rows) // columns)
    blocks = [grid(rows[start : start + per], header=styles) for start in range(0, len(rows), per)]
    sheet = Image.new("RGB", (sum(block.width for block in blocks), max(block.height for block in blocks)), "white")
    left = 0
    for block in blocks:
        sheet.paste(block, (left, 0))
        left += block.width
    return sheet
