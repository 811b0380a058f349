"""What a picture or a latent shows by itself: the floor of every attack that puts one in.

A noised picture still shows much. The best guess of an observer who knows images of other things, but not this concept,
and who may only add and multiply, is Wiener's. With x = alpha z + sigma noise, and the mean m and the covariance S of
latents z of kept pictures:

    z^ = m + alpha S (alpha^2 S + sigma^2 I)^-1 (x - alpha m)

S is estimated from fewer pictures than it has rows, and so drawn towards v I, v the mean variance, by OAS (Chen,
Wiesel, Eldar, Hero 2010, eq. 23). A model's own guess is not linear and may be better: the floor is a lower bound of
the true one, which a retrained reference alone shows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from publisher.api import Anatomy, ImageRequest
from publisher.api.diffusion.latents import decode_latents
from publisher.runtime.beginning import Level, mixed
from publisher.runtime.generate import levels_of, noise_of

if TYPE_CHECKING:
    from publisher.api.diffusion.starting import Start

VERSION = "1"
"""Raised when the same start shows something else by itself."""


@dataclass(frozen=True)
class Prior:
    """Mean and covariance of latents of pictures, of d numbers each."""

    mean: Tensor
    """``(d,)``."""
    directions: Tensor
    """Along which their variance is known, ``(r, d)``, orthonormal."""
    variances: Tensor
    """Along each of them, ``(r,)``."""
    rest: float
    """Variance along all others."""

    @classmethod
    def of(cls, latents: Tensor) -> Prior:
        """Return that of some pictures' latents, ``(n, c, h, w)``, n at least 2."""
        rows = latents.flatten(1).double()
        count, size = len(rows) - 1, rows.shape[1]
        mean = rows.mean(0)
        _, singular, directions = torch.linalg.svd(rows - mean, full_matrices=False)
        sampled = singular.square() / count
        trace, squares = float(sampled.sum()), float(sampled.square().sum())
        level = trace / size
        above = (count + 1 - 2 / size) * (squares - trace**2 / size)
        drawn = min(1.0, ((1 - 2 / size) * squares + trace**2) / above) if above > 0 else 1.0
        return cls(mean, directions, (1 - drawn) * sampled + drawn * level, drawn * level)

    def guess(self, x: Tensor, level: Level) -> Tensor:
        """Return the best linear guess of the pictures' latents, ``(n, c, h, w)``.

        Args:
            x: ``alpha z + sigma noise``, of the same shape.
            level: alpha and sigma.
        """
        alpha, sigma = level
        off = x.flatten(1).double() - alpha * self.mean
        along = off @ self.directions.T
        gains, rest = (alpha * one / (alpha**2 * one + sigma**2) for one in (self.variances, self.rest))
        guessed = self.mean + rest * off + (along * (gains - rest)) @ self.directions
        return guessed.to(x.dtype).view(x.shape)


def shown_by_inputs(
    pipeline: Any, requests: Sequence[ImageRequest], start: Start, prior: Callable[[], Prior]
) -> list[Tensor]:
    """Return what the images of some requests begin from, as images, in each way in which it may be seen.

    Pictures of which a part is known are seen on white, and on the mean colour of that part. Latents that were made
    from pictures are seen as these pictures, and all others as Wiener's guess.

    Args:
        pipeline: whose autoencoder decodes; no other thread may use its scheduler.
        requests: one for each row; their seeds say the noise.
        start: n rows.
        prior: of pictures; asked where it is needed.

    Returns:
        ``(n, 3, h, w)`` uint8 each, at least one.
    """
    if start.picture is not None:
        seen = [decode_latents(pipeline.vae, start.picture)]
    elif start.mask is not None:
        seen = _pasted(decode_latents(pipeline.vae, start.latents), _known_pixels(start.mask, pipeline.anatomy))
    else:
        path = levels_of(pipeline, requests)
        level = path[start.begin.skipped * getattr(pipeline.scheduler, "order", 1)]
        given = mixed(start, noise_of(pipeline, requests), level)
        seen = [decode_latents(pipeline.vae, prior().guess(given, level))]
    return [one.mul(255).round().to(torch.uint8) for one in seen]


def without_known(images: Tensor, start: Start, anatomy: Anatomy) -> Tensor:
    """Return images whose known part has its mean colour, ``(n, 3, h, w)`` uint8.

    Args:
        images: ``(n, 3, h, w)`` uint8.
        start: that they were generated from, n rows with a mask.
        anatomy: says how large a latent pixel is.
    """
    if start.mask is None:
        return images
    known, pixels = _known_pixels(start.mask, anatomy), images.float()
    return (_mean_of(pixels, known) * known + pixels * (1 - known)).round().to(torch.uint8)


def _known_pixels(mask: Tensor, anatomy: Anatomy) -> Tensor:
    """Return which pixels are known, ``(n, 1, h, w)``, from the same of latent pixels."""
    size = anatomy.latents.pixels
    return mask.repeat_interleave(size, 2).repeat_interleave(size, 3)


def _mean_of(images: Tensor, known: Tensor) -> Tensor:
    return (images * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)


def _pasted(images: Tensor, known: Tensor) -> list[Tensor]:
    return [images * known + (1 - known), images * known + _mean_of(images, known) * (1 - known)]
