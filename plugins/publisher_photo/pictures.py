"""Folders of images that stand for a label: read, laid on white, and each image once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

TYPES = (".png", ".jpg", ".jpeg")
"""Types of the files that are read."""


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Return ``(h, w, 3)``: turned as its camera says, transparent parts on white. Imports no torch.

    Raises:
        UsageError: it cannot be read.
    """
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB"))
    except Exception as error:
        raise UsageError(f"this image cannot be read: {error}", where=str(path), hint="Take it out.") from error


def distinct_pixels(folder: Path, least: int, label: str) -> list[NDArray[np.uint8]]:
    """Return the images of a folder and its sub-folders, sorted by path, equal ones once. Imports no torch.

    Args:
        folder: of PNG and JPEG files.
        least: number of images that have to differ.
        label: that they show, for errors.

    Raises:
        UsageError: fewer differ, or one cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in TYPES and path.is_file())
    found: dict[str, NDArray[np.uint8]] = {}
    for image in map(read_pixels, files):
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
        found.setdefault(key, image)
    if len(found) < least:
        what = f"{label!r} has {len(files)} images in this folder, of which {len(found)} differ"
        raise UsageError(
            f"{what}; at least {least} are needed", where=str(folder), hint="Add images, or lower 'nearest'."
        )
    return list(found.values())


def distinct_images(folder: Path, least: int, label: str) -> list[Tensor]:
    """Return the same as tensors ``(1, 3, h, w)`` in [0, 1].

    Raises:
        UsageError: fewer differ, or one cannot be read.
    """
    return [as_tensor(pixels) for pixels in distinct_pixels(folder, least, label)]


def read_image(path: Path) -> Tensor:
    """Return ``(1, 3, h, w)`` float32 in [0, 1].

    Raises:
        UsageError: it cannot be read.
    """
    return as_tensor(read_pixels(path))


def as_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Return ``(1, 3, h, w)`` float32 in [0, 1] of ``(h, w, 3)``."""
    import torch

    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255)
