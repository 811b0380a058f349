"""What is kept of each image: who asked for it how, what the scorer said, and its digest. Never the image itself."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from publisher.api import Params

if TYPE_CHECKING:
    import torch

SIDE = 256
"""Longest side of an image in the report, in pixels."""


def json_lines(rows: Iterable[Params]) -> bytes:
    """Return one JSON object a line, keys sorted, UTF-8."""
    lines = (json.dumps(row.as_json(), sort_keys=True, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def pixels_sha256(image: torch.Tensor) -> str:
    """Return the sha256 of the pixels of ``(3, h, w)`` uint8, as RGB row by row."""
    return hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the root mean square difference of two uint8 images, on [0, 1] pixels, to six digits."""
    difference = (first.double() - second.double()).div(255)
    return round(float(difference.square().mean().sqrt()), 6)


def png_base64(image: torch.Tensor) -> str:
    """Return a PNG of ``(3, h, w)`` uint8, at most :data:`SIDE` pixels a side, as base64 text."""
    from PIL import Image

    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
