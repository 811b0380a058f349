"""Folders of images that stand for a label: read, laid on white, and each image once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import UsageError

if TYPE_CHECKING:
    from torch import Tensor

TYPES = (".png", ".jpg", ".jpeg")
"""Types of the files that are read."""


def read_image(path: Path) -> Tensor:
    """Return ``(1, 3, h, w)`` float32 in [0, 1]: turned as its camera says, transparent parts on white.

    Raises:
        UsageError: it cannot be read.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        pixels = np.asarray(Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB"))
    except Exception as error:
        raise UsageError(f"this image cannot be read: {error}", where=str(path), hint="Take it out.") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().div(255)


def distinct_images(folder: Path, least: int) -> list[Tensor]:
    """Return the images of a folder and its sub-folders, sorted by path, equal ones once.

    Args:
        folder: of PNG and JPEG files.
        least: number of images that have to differ.

    Raises:
        UsageError: fewer differ, or one cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in TYPES and path.is_file())
    found: dict[str, Tensor] = {}
    for image in map(read_image, files):
        key = hashlib.sha256(repr(tuple(image.shape)).encode() + image.numpy().tobytes()).hexdigest()
        found.setdefault(key, image)
    if len(found) < least:
        what = f"this folder has {len(files)} images, of which {len(found)} differ; at least {least} are needed"
        raise UsageError(what, where=str(folder), hint="Add images, or lower 'nearest'.")
    return list(found.values())
