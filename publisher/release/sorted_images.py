"""Images that show a concept, and images that do not: read, each once, and halved so that one half can choose."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api.calibration import Agreement
from publisher.errors import UsageError
from publisher.evaluate.evidence import pixels_sha256
from publisher.runtime.references import read_images

if TYPE_CHECKING:
    import torch

LEAST = 20
"""Fewest images of a side."""
BATCH = 32
"""Images that a scorer gets at once."""
TYPES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True, eq=False)
class SortedImage:
    """An image that is known to show the concept, or not to."""

    name: str
    """Names it in messages."""
    pixels: torch.Tensor
    """``(3, h, w)`` uint8."""
    digest: str
    """sha256 of its pixels."""
    folder: str = ""
    """Sub-folder that it lies in, or prompt that it was generated from: pictures of one resemble each other."""


@dataclass(frozen=True, eq=False)
class Sides:
    """Images of the concept, and images of something else."""

    positives: tuple[SortedImage, ...]
    negatives: tuple[SortedImage, ...]
    duplicates: int = 0
    """Images that were left out because their pixels were there already."""
    labellers: Agreement | None = None
    """Agreement of two people who sorted them; None: one did."""

    def digests(self, salt: str) -> tuple[str, str]:
        """Return a sha256 over the salt and the sorted digests of each side."""
        first, second = (
            hashlib.sha256("\n".join([salt, *sorted(image.digest for image in side)]).encode()).hexdigest()
            for side in (self.positives, self.negatives)
        )
        return first, second


def read_sides(positives: Path, negatives: Path, size: tuple[int, int]) -> Sides:
    """Read two folders of images, with their sub-folders, at the size of a model's images.

    Args:
        positives: folder of images that show the concept.
        negatives: folder of images that do not.
        size: height and width, in pixels.

    Raises:
        UsageError: too few different images, one that is on both sides, or a file that cannot be read.
    """
    every = [_read(folder, size) for folder in (positives, negatives)]
    sides = [_unique(images) for images in every]
    for folder, images, side in zip((positives, negatives), every, sides, strict=True):
        if len(side) < LEAST:
            dropped = len(images) - len(side)
            repeats = f": of {len(images)} files, {dropped} repeat the pixels of others" if dropped else ""
            raise UsageError(
                f"{len(side)} different images are too few{repeats}",
                where=str(folder),
                hint=f"At least {LEAST} are needed on each side, better 100: one half chooses, the other is counted.",
            )
    here = {image.digest: image for image in sides[0]}
    both = next((image for image in sides[1] if image.digest in here), None)
    if both:
        hint = "An image shows the concept or does not. Take it out of one of the folders."
        raise UsageError(f"has the pixels of {here[both.digest].name}, on the other side", where=both.name, hint=hint)
    return Sides(sides[0], sides[1], sum(map(len, every)) - sum(map(len, sides)))


def agreed_sides(first: tuple[Path, Path], second: tuple[Path, Path], size: tuple[int, int]) -> Sides:
    """Read images that two people have sorted; those that both put on the same side remain.

    Images are the same where their pixels are, whatever their files are called.

    Args:
        first: one person's folders, of the images that show the concept and of those that do not.
        second: the other's.
        size: height and width, in pixels.

    Raises:
        UsageError: too few images are left, one that a person put on both sides, or a file that cannot be read.
    """
    mine, theirs = read_sides(*first, size), read_sides(*second, size)
    shown, other = ({image.digest for image in side} for side in (theirs.positives, theirs.negatives))
    positives = tuple(image for image in mine.positives if image.digest in shown)
    negatives = tuple(image for image in mine.negatives if image.digest in other)
    alike = len(positives) + len(negatives)
    n = sum(image.digest in shown | other for image in (*mine.positives, *mine.negatives))
    for folders, side in zip(zip(first, second, strict=True), (positives, negatives), strict=True):
        if len(side) < LEAST:
            raise UsageError(
                f"{len(side)} images are too few that both people put there; of {n} that both sorted, {alike} alike",
                where=f"{folders[0]} and {folders[1]}",
                hint=f"At least {LEAST} are needed on each side. Both folders have to hold the same pictures.",
            )
    return Sides(positives, negatives, mine.duplicates, Agreement(alike=alike, n=n))


def generated_sides(generated: Sequence[torch.Tensor], prompts: Sequence[Sequence[str]]) -> Sides:
    """Return images that a model has generated, every picture once. Those of one prompt count as of one folder.

    Args:
        generated: positives and negatives, ``(n, 3, h, w)`` uint8 each.
        prompts: of both, one for each image.
    """
    every = [
        [
            SortedImage(f"image {i}", image, pixels_sha256(image), prompt)
            for i, (image, prompt) in enumerate(zip(images, texts, strict=True))
        ]
        for images, texts in zip(generated, prompts, strict=True)
    ]
    sides = [_unique(images) for images in every]
    return Sides(sides[0], sides[1], sum(map(len, every)) - sum(map(len, sides)))


def halves(sides: Sides, seed: int) -> tuple[Sides, Sides]:
    """Return two halves of each side. Where there are sub-folders, whole folders are put into one of them.

    Args:
        sides: at least two images each.
        seed: of the shuffle.

    Raises:
        UsageError: a few large folders leave too little for one half.
    """
    (first, second), (others, more) = _halved(sides.positives, seed), _halved(sides.negatives, seed)
    return Sides(first, others), Sides(second, more)


def _halved(images: Sequence[SortedImage], seed: int) -> tuple[tuple[SortedImage, ...], tuple[SortedImage, ...]]:
    apart = len({image.folder for image in images}) > 1
    groups: dict[str, list[SortedImage]] = {}
    for image in images:
        groups.setdefault(image.folder if apart else image.digest, []).append(image)
    order = sorted(groups)
    random.Random(f"publisher:calibrate:{seed}").shuffle(order)
    first: list[SortedImage] = []
    second: list[SortedImage] = []
    for name in order:
        (first if len(first) <= len(second) else second).extend(groups[name])
    if min(len(first), len(second)) < LEAST // 2:
        raise UsageError(
            f"the sub-folders cannot be halved: {len(first)} and {len(second)} images",
            where=str(Path(images[0].name).parent),
            hint="Pictures of one sub-folder stay together. Give more sub-folders, or none.",
        )
    return tuple(first), tuple(second)


def batches(images: Sequence[SortedImage]) -> Iterator[torch.Tensor]:
    """Yield the pixels, :data:`BATCH` images at a time, ``(n, 3, h, w)`` uint8."""
    import torch

    for start in range(0, len(images), BATCH):
        yield torch.stack([image.pixels for image in images[start : start + BATCH]])


def _read(folder: Path, size: tuple[int, int]) -> list[SortedImage]:
    if not folder.is_dir():
        raise UsageError("is no folder", where=str(folder), hint="Name a folder of PNG or JPEG files.")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in TYPES)
    found = []
    for path in files:
        pixels = read_images([path], size)[0].mul(255).round().byte()
        where = path.parent.relative_to(folder).as_posix()
        found.append(SortedImage(str(path), pixels, pixels_sha256(pixels), "" if where == "." else where))
    return found


def _unique(images: Sequence[SortedImage]) -> tuple[SortedImage, ...]:
    """Return the images, the first of each picture alone."""
    return tuple({image.digest: image for image in reversed(images)}.values())[::-1]
