"""Reference images as tensors, and the augmentation that all training shares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from publisher_emoji.concepts import DATA, Vocabulary
from publisher_emoji.training.config import ImageConfig


@dataclass(frozen=True)
class Artwork:
    """All reference images with their labels."""

    images: Tensor
    """Images ``(n, 3, 64, 64)``, float32 in [-1, 1]; white is 1."""
    objects: Tensor
    """Numbers of the vocabulary's objects, ``(n,)``."""
    styles: Tensor
    """Numbers of the vocabulary's styles, ``(n,)``."""

    def __len__(self) -> int:
        return len(self.images)

    def without(self, *, object_index: int | None = None, style_index: int | None = None) -> Artwork:
        """Return all but one object's or one style's images."""
        keep = torch.ones(len(self), dtype=torch.bool)
        if object_index is not None:
            keep &= self.objects != object_index
        if style_index is not None:
            keep &= self.styles != style_index
        return Artwork(self.images[keep], self.objects[keep], self.styles[keep])


def load_artwork(words: Vocabulary) -> Artwork:
    """Read every reference image, ordered by style, then object."""
    images, objects, styles = [], [], []
    for style_index, style in enumerate(words.style_names):
        for object_index, thing in enumerate(words.objects):
            path = DATA / "images" / style / f"{thing.slug}.png"
            if path.exists():
                images.append(torch.from_numpy(np.array(Image.open(path).convert("RGB"))))
                objects.append(object_index)
                styles.append(style_index)
    pixels = torch.stack(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return Artwork(pixels.contiguous(), torch.tensor(objects), torch.tensor(styles))


def augment(images: Tensor, config: ImageConfig, generator: torch.Generator, *, rotation: float = 0.0) -> Tensor:
    """Scale, shift and rotate at random on a white ground, then reduce to ``config.size``.

    Args:
        images: ``(b, 3, h, h)`` in [-1, 1], with h a multiple of ``config.size``.
        config: range of scale; largest shift in pixels of the result.
        generator: source of all samples.
        rotation: largest angle in degrees, either way.

    Returns:
        ``(b, 3, size, size)`` in [-1, 1].
    """
    b = len(images)
    low, high = config.scale
    scale = torch.empty(b).uniform_(low, high, generator=generator)
    shift = torch.empty(b, 2).uniform_(-config.shift, config.shift, generator=generator) * 2 / config.size
    angle = torch.empty(b).uniform_(-rotation, rotation, generator=generator) * torch.pi / 180
    cos, sin = angle.cos() / scale, angle.sin() / scale
    matrix = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
    offset = -(matrix @ shift[:, :, None])
    grid = F.affine_grid(torch.cat([matrix, offset], 2), list(images.shape), align_corners=False)
    moved = 1 - F.grid_sample(1 - images, grid, align_corners=False)
    return F.avg_pool2d(moved, images.shape[-1] // config.size)
