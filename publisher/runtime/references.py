"""Reference images of a concept: what steps train on, and what attacks train on. Never the same ones.

Where the manifest names files, the publisher has the 1st, 3rd, 5th... of them in sorted order, the attacker the others.
Where it names none, the base model generates them from the concept's prompts: image i has the seed ``FIRST_SEED[who] +
i``.
The ranges lie above all seeds that a manifest can give to its checks (those are below 2**31), and are too far apart to
meet. Nothing here writes to disk, so images of persons or of unsafe content stay in memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from publisher.api import Anatomy, Concept, ImageRequest, References
from publisher.errors import ModelError, UsageError
from publisher.runtime.generate import batch_size, generate
from publisher.runtime.refusals import is_refused
from publisher.runtime.side_by_side import one_thread_each, workers_for

if TYPE_CHECKING:
    import torch
    from PIL import Image

VERSION = "1"
"""Raised when the same concept gets other images."""
Who = Literal["publisher", "attacker", "prior"]
"""``prior``: images of other things, which an attacker has beside those of the concept."""
FIRST_SEED: dict[Who, int] = {"publisher": 0x9000_0000, "attacker": 0xB000_0000, "prior": 0xD000_0000}
"""First seed of each, below 2**32: the generator of the CPU takes no more of a seed than its last 32 bits."""
MAX_PIXELS = 64_000_000
"""Pixels of an image file; more is refused before it is decoded."""
MAX_FILE = 64 * 1024 * 1024
"""Bytes of an image file."""


@dataclass(frozen=True)
class ReferenceSettings:
    """Settings with which a base model generates reference images."""

    folder: Path
    """Folder of the base model."""
    anatomy: Anatomy
    """Parts of the base model."""
    device: torch.device
    dtype: torch.dtype
    """Type of the networks."""
    steps: int
    """Sampling steps."""
    guidance: float
    """Classifier-free guidance scale."""


@dataclass(frozen=True)
class Wanted:
    """Reference images of one concept."""

    concept: Concept
    """Whose prompts they show."""
    count: int
    """Number of images, at least 1."""
    files: Sequence[Path] = ()
    """The concept's image files as the manifest names them; empty: the model generates."""


def reference_sets(
    reference_settings: ReferenceSettings, wanted: Sequence[Wanted], half: Literal["publisher", "attacker"]
) -> list[References]:
    """Return so many reference images of several concepts, of one half; all are generated in one go.

    Args:
        reference_settings: the base model, which generates where there are no files, and says how large the images are.
        wanted: which.
        half: who asks.

    Raises:
        ModelError: the model cannot generate them.
        UsageError: too few files, a file that is no image, or a concept that nobody may generate.
    """
    requests = [_requests(reference_settings, one, half) for one in wanted]
    generated = [request for one, asked in zip(wanted, requests, strict=True) if not one.files for request in asked]
    images = iter(generate_images(reference_settings, generated) if generated else ())
    return [
        References(_images(reference_settings, one, half, images), tuple(request.prompt for request in asked))
        for one, asked in zip(wanted, requests, strict=True)
    ]


def _requests(reference_settings: ReferenceSettings, wanted: Wanted, half: Who) -> tuple[ImageRequest, ...]:
    if wanted.count < 1:
        what = f"{wanted.count} reference images of {wanted.concept.id!r} were asked for"
        raise UsageError(what, hint="Ask for at least 1.")
    return reference_requests(wanted.concept, wanted.count, half, reference_settings.steps, reference_settings.guidance)


def _images(
    reference_settings: ReferenceSettings,
    wanted: Wanted,
    half: Literal["publisher", "attacker"],
    generated: Iterator[torch.Tensor],
) -> torch.Tensor:
    import torch

    if wanted.files:
        own = half_of(wanted.files, half, wanted.count, wanted.concept.id)
        return read_images(own, reference_settings.anatomy.latents.image_size)
    return torch.stack([next(generated) for _ in range(wanted.count)])


def reference_requests(concept: Concept, count: int, who: Who, steps: int, guidance: float) -> tuple[ImageRequest, ...]:
    """Return what is generated: the concept's prompts in turn, those left out that nobody may generate.

    Raises:
        UsageError: none is left.
    """
    prompts = [prompt for prompt in concept.prompts if not is_refused(prompt, concept)]
    if not prompts:
        raise UsageError(f"all prompts of {concept.id!r} combine sexual content with minors and are never generated")
    return tuple(
        ImageRequest(
            concept=concept.id,
            prompt=prompts[i % len(prompts)],
            seed=FIRST_SEED[who] + i,
            steps=steps,
            guidance=guidance,
        )
        for i in range(count)
    )


def half_of(
    files: Sequence[Path], half: Literal["publisher", "attacker"], count: int, concept: str
) -> tuple[Path, ...]:
    """Return the first ``count`` files of one half.

    Raises:
        UsageError: there are fewer.
    """
    own = sorted(files)[0 if half == "publisher" else 1 :: 2]
    if len(own) < count:
        raise UsageError(
            f"{count} reference images of {concept!r} are needed, and the {half}'s half of its {len(files)} files"
            f" has {len(own)}",
            hint="Name more under the concept's images, or ask for fewer.",
        )
    return tuple(own[:count])


def read_images(files: Sequence[Path], size: tuple[int, int]) -> torch.Tensor:
    """Read image files as a model would have generated them, ``(n, 3, height, width)`` float32 in [0, 1].

    Args:
        files: PNG or JPEG; transparent pixels become white. The middle square of another shape is taken.
        size: height and width.

    Raises:
        UsageError: a file is not there, too large, or no image; the message names it.
    """
    import torch

    return torch.stack([_pixels(path, size) for path in files])


def _pixels(path: Path, size: tuple[int, int]) -> torch.Tensor:
    import numpy as np
    import torch
    from PIL import ImageOps

    fitted = ImageOps.fit(_opened(path), (size[1], size[0]))
    return torch.from_numpy(np.asarray(fitted, dtype=np.float32) / 255).permute(2, 0, 1)


def _opened(path: Path) -> Image.Image:
    from PIL import Image, ImageOps

    try:
        if path.stat().st_size > MAX_FILE:
            raise ValueError(f"more than {MAX_FILE // 2**20} MiB")  # noqa: TRY301 - one message for all
        with warnings.catch_warnings(), Image.open(path, formats=("PNG", "JPEG")) as image:
            warnings.simplefilter("ignore")  # what matters is an error; a warning tells of nothing that is read here
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels")  # noqa: TRY301
            upright = ImageOps.exif_transpose(image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    except Exception as error:  # whatever the decoder makes of a hostile file
        raise UsageError(
            f"cannot be used as a reference image: {type(error).__name__}: {error}"[:300],
            where=str(path),
            hint=f"Give PNG or JPEG, at most {MAX_PIXELS:,} pixels.",
        ) from error


def generate_images(reference_settings: ReferenceSettings, requests: Sequence[ImageRequest]) -> torch.Tensor:
    """Generate requests that go together, ``(n, 3, h, w)`` float32 in [0, 1]; small ones side by side, a thread each.

    Raises:
        ModelError: the model cannot be loaded, or generates no image.
    """
    import torch

    from publisher.runtime.pipelines import load, twin

    anatomy = reference_settings.anatomy
    pipeline = load(reference_settings.folder, anatomy, reference_settings.device, reference_settings.dtype)
    latent = anatomy.latents.size
    parts = list(_batches(requests, batch_size(latent)))
    workers = workers_for(latent, reference_settings.device.type)
    try:
        if workers > 1:
            generated = one_thread_each(lambda part: generate(twin(pipeline), part), parts, workers)
        else:
            generated = [generate(pipeline, part) for part in parts]
    except Exception as error:
        what = f"it generated no reference image: {type(error).__name__}: {error}"
        raise ModelError(what, where=str(reference_settings.folder)) from error
    return torch.cat(generated).float().div(255)


def _batches(requests: Sequence[ImageRequest], size: int) -> Iterator[Sequence[ImageRequest]]:
    for start in range(0, len(requests), size):
        yield requests[start : start + size]
