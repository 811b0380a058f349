"""The strip of pictures in the model card: of each concept that goes, base images above hardened ones.

Images of one column have the same prompt and seed. The record holds none of persons and of unsafe concepts.
"""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.api import GoneConcept, ImagePair, ReleaseReport

if TYPE_CHECKING:
    from PIL import Image

MOST_CONCEPTS, MOST_PAIRS = 8, 6
TILE, GAP = 96, 8
"""Pixels: side of an image in the strip, and between the rows of two concepts."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_BYTES = 8 * 1024 * 1024
_CHUNKS = (b"IHDR", b"IDAT", b"IEND")


@dataclass(frozen=True)
class PictureStrip:
    """A strip and what it shows."""

    png: bytes
    """The whole file."""
    concepts: tuple[GoneConcept, ...]
    """Concepts, from top to bottom."""
    left_out: int
    """Further concepts with images."""


def strip(report: ReleaseReport) -> PictureStrip | None:
    """Return the strip of a report; None where no image of a concept that goes is in it."""
    found = [(concept, pairs) for concept in report.concepts if (pairs := _pairs(report, concept))]
    if not found:
        return None
    shown = found[:MOST_CONCEPTS]
    png = _draw([pairs for _, pairs in shown])
    return PictureStrip(png, tuple(concept for concept, _ in shown), len(found) - len(shown))


def _pairs(report: ReleaseReport, concept: GoneConcept) -> list[ImagePair]:
    """Return the pairs of the first check that shows the concept."""
    pairs = [pair for pair in report.pairs if pair.concept == concept.id]
    return [pair for pair in pairs if pair.check == pairs[0].check][:MOST_PAIRS]


def _draw(rows: list[list[ImagePair]]) -> bytes:
    from PIL import Image

    height = 2 * TILE * len(rows) + GAP * (len(rows) - 1)
    sheet = Image.new("RGB", (TILE * max(map(len, rows)), height), "white")
    for number, pairs in enumerate(rows):
        top = number * (2 * TILE + GAP)
        for column, pair in enumerate(pairs):
            for below, data in enumerate((pair.base_png, pair.hardened_png)):
                tile = _tile(base64.b64decode(data))
                left = column * TILE + (TILE - tile.width) // 2
                sheet.paste(tile, (left, top + below * TILE + (TILE - tile.height) // 2))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=False)
    return buffer.getvalue()


def _tile(data: bytes) -> Image.Image:
    """Return an image that fits a tile; small ones are enlarged with hard edges, by a whole factor where that fits."""
    from PIL import Image

    with Image.open(io.BytesIO(data), formats=("PNG",)) as found:
        image = found.convert("RGB")
    scale = TILE / max(image.size)
    if scale >= 1:
        factor = int(scale)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def problem(data: bytes) -> str:
    """Return why a file is not a plain PNG image, or an empty text.

    Nothing but a header, compressed pixels and an end may be in it, each with its checksum: no text, no profile, and
    nothing behind the end. The pixels are not decompressed.
    """
    if not data.startswith(SIGNATURE):
        return "is no PNG image"
    place, kinds = len(SIGNATURE), []
    while place < len(data):
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        body, checksum = data[place + 8 : place + 8 + length], data[place + 8 + length : place + 12 + length]
        if kind not in _CHUNKS or len(checksum) < 4 or zlib.crc32(kind + body) != int.from_bytes(checksum):
            return "is a PNG image with more in it than pixels, or a damaged one"
        kinds.append(kind)
        place += 12 + length
    if kinds[:1] != [b"IHDR"] or kinds[-1:] != [b"IEND"] or kinds.count(b"IHDR") + kinds.count(b"IEND") != 2:
        return "is not one whole PNG image"
    return ""
