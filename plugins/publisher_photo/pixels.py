"""Pixels as networks want them: resized by torch with antialias, cut, and normalised. No torchvision is needed.

Images may have any size and shape. Each network's own way of resizing stands in its ``preprocessor_config.json``; what
that file can ask for and this module cannot do is an error, never a silent difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.api import ModelError

if TYPE_CHECKING:
    from torch import Tensor

PIL_FILTERS = {2: "bilinear", 3: "bicubic"}
"""PIL's number of a resampling filter -> its name in torch."""
KNOWN_SMALL = 384
"""Pixels from which on processors with ``crop_pct`` resize without cutting."""


@dataclass(frozen=True)
class Preparation:
    """What is done to an image before a network sees it."""

    height: int
    width: int
    """Size that the network takes, in pixels."""
    shortest: int = 0
    """Pixels that the shorter side gets before the middle is cut out; 0: the image is squeezed to the size."""
    resample: str = "bicubic"
    """``"bicubic"`` or ``"bilinear"``, both with antialias."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """What is subtracted from red, green and blue in [0, 1]."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    """What red, green and blue are then divided by."""

    def __str__(self) -> str:
        size = f"{self.height} x {self.width}"
        cut = f"shorter side to {self.shortest}, middle of {size}" if self.shortest else f"squeezed to {size}"
        mean, std = (", ".join(f"{one:.4g}" for one in numbers) for numbers in (self.mean, self.std))
        return f"{cut}; {self.resample} with antialias; minus ({mean}), divided by ({std})"


def checked(images: Tensor) -> Tensor:
    """Return the images as float32, if they are images.

    Raises:
        ValueError: not ``(n, 3, h, w)``, or values that are not finite or not in [0, 1].
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images have the shape (n, 3, h, w), red, green and blue, not {tuple(images.shape)}")
    images = images.float()
    least, most = images.aminmax() if images.numel() else (images.new_zeros(()), images.new_ones(()))
    if not (least >= 0 and most <= 1):  # NaN, which aminmax passes on, is neither
        raise ValueError("images hold finite values in [0, 1] alone")
    return images


def resized(images: Tensor, height: int, width: int, resample: str = "bicubic") -> Tensor:
    """Return ``(n, c, height, width)`` of ``(n, c, h, w)`` in [0, 1]; bicubic can overshoot, so it is clamped."""
    from torch.nn.functional import interpolate

    if images.shape[2:] == (height, width):
        return images
    return interpolate(images, (height, width), mode=resample, antialias=True, align_corners=False).clamp(0, 1)


def prepared(images: Tensor, preparation: Preparation) -> Tensor:
    """Return ``(n, 3, height, width)`` for a network, of ``(n, 3, h, w)`` in [0, 1].

    Raises:
        ValueError: these are no images.
    """
    images, size = checked(images), preparation
    if size.shortest:
        high, wide = images.shape[2:]
        scale = size.shortest / min(high, wide)
        images = resized(images, max(int(high * scale), size.height), max(int(wide * scale), size.width), size.resample)
        top, left = ((images.shape[2 + i] - wanted) // 2 for i, wanted in enumerate((size.height, size.width)))
        images = images[:, :, top : top + size.height, left : left + size.width]
    images = resized(images, size.height, size.width, size.resample)
    mean, std = (images.new_tensor(numbers).view(1, 3, 1, 1) for numbers in (size.mean, size.std))
    return (images - mean) / std


def preparation_of(processor: Mapping[str, Any], where: str) -> Preparation:
    """Return what a ``preprocessor_config.json`` of transformers asks for.

    Args:
        processor: its content.
        where: its path, for errors.

    Raises:
        ModelError: it asks for something that this module does not do.
    """
    _refuse_other_ways(processor, where)
    resample = PIL_FILTERS.get(processor.get("resample", 3))
    if resample is None:
        raise ModelError("images are resized neither by bilinear nor by bicubic interpolation", where=where)
    mean, std = (tuple(map(float, processor.get(f"image_{name}") or ())) for name in ("mean", "std"))
    if not processor.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise ModelError("image_mean and image_std need three numbers each, for red, green and blue", where=where)
    high, wide, shortest = _sizes(processor, where)
    return Preparation(high, wide, shortest, resample, mean, std)


def _refuse_other_ways(processor: Mapping[str, Any], where: str) -> None:
    factor = processor.get("rescale_factor", 1 / 255)
    if not processor.get("do_rescale", True) or abs(factor * 255 - 1) > 1e-3 or processor.get("rescale_offset"):
        raise ModelError("pixels are scaled to something else than [0, 1] before they are normalised", where=where)
    if not processor.get("do_resize", True) or processor.get("do_pad"):
        hint = "Known are processors that resize, and those that resize and cut out the middle."
        raise ModelError("images are not resized, or padded", where=where, hint=hint)


def _sizes(processor: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    """Return height, width, and the length of the shorter side before the cut; 0: there is no cut."""
    size = processor.get("size", processor.get("crop_size"))
    size = {"shortest_edge": size} if isinstance(size, int) else dict(size or {})
    shortest = size.get("shortest_edge")
    if "crop_pct" in processor and isinstance(shortest, int):
        if shortest >= KNOWN_SMALL:
            return shortest, shortest, 0
        return shortest, shortest, int(shortest / processor["crop_pct"])
    crop = processor.get("crop_size")
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else dict(crop or {})
    if isinstance(shortest, int) and processor.get("do_center_crop", bool(crop)) and {"height", "width"} <= crop.keys():
        if max(crop["height"], crop["width"]) > shortest:
            raise ModelError("the part that is cut out is larger than the image", where=where)
        return int(crop["height"]), int(crop["width"]), shortest
    if {"height", "width"} <= size.keys() and not processor.get("do_center_crop", False):
        return int(size["height"]), int(size["width"]), 0
    if isinstance(shortest, int) and not crop and not processor.get("do_center_crop", False):
        return shortest, shortest, 0  # one number was how ViT's first processors said both sides
    raise ModelError(f"the size of images cannot be read: size {size}, crop_size {crop}", where=where)
