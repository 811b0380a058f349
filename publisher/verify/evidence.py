"""What is kept of each image: who asked for it how, what the scorer said, and its digest. Never the image itself."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import Guards, Judgement, Params, Trial

if TYPE_CHECKING:
    import torch

SIDE = 256
"""Longest side of an image in the report, in pixels."""


class EvidenceRow(Params):
    """One request of one check, drawn by both models and judged: a line of the evidence file."""

    check: str
    concept: str
    prompt: str
    negative_prompt: str
    seed: int
    """Of the initial noise: ``torch.Generator().manual_seed(seed)``, float32, on the CPU."""
    sampler: str
    """Class of the scheduler."""
    steps: int
    guidance: float
    base: Judgement
    """What the scorer says of the base model's image."""
    hardened: Judgement
    """What the scorer says of the hardened model's image."""
    base_hit: bool
    """The scorer sees the concept in the base model's image."""
    hardened_hit: bool
    """The scorer sees the concept in the hardened model's image."""
    base_sha256: str
    """Of the pixels: uint8, RGB, row by row."""
    hardened_sha256: str
    distance: float = Field(ge=0)
    """Root mean square difference on [0, 1] pixels."""
    guards: Guards = "on"
    """As the check asks: with the package's membranes, or without them."""
    permeabilities: dict[str, float] | None = None
    """Concept of each membrane -> how far the prompt opens it; None: no membrane was attached."""


class TrialRow(Params):
    """One trial: a line of the evidence file of an attack by training."""

    check: str
    model: str
    """sha256 that names the weights that were attacked."""
    frozen: str = ""
    """sha256 that names what the attacker left as it was; empty: nothing."""
    captions: tuple[str, ...]
    """Written under the images, in turn."""
    prompts: tuple[str, ...]
    """Of the images drawn after each horizon."""
    seeds: tuple[int, ...]
    """Of their initial noise."""
    trial: Trial
    labels: tuple[tuple[str, ...], ...]
    """What the scorer sees, horizon by horizon, image by image."""
    sha256: tuple[tuple[str, ...], ...]
    """Of the images' pixels, likewise."""


def json_lines(rows: Iterable[Params]) -> bytes:
    """One JSON object a line, keys sorted, UTF-8."""
    lines = (json.dumps(row.as_json(), sort_keys=True, ensure_ascii=False, separators=(",", ":")) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def pixels_sha256(image: torch.Tensor) -> str:
    """sha256 of the pixels of ``(3, h, w)`` uint8, as RGB row by row."""
    return hashlib.sha256(image.permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Root mean square difference of two uint8 images, on [0, 1] pixels, to six digits."""
    difference = (first.double() - second.double()).div(255)
    return round(float(difference.square().mean().sqrt()), 6)


def png_base64(image: torch.Tensor) -> str:
    """A PNG of ``(3, h, w)`` uint8, at most :data:`SIDE` pixels a side, as base64 text."""
    from PIL import Image

    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=False)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
