"""The scorer ``reference``: an image shows a label when it is near to images of that label.

For styles, characters and logos, which no list of classes holds and no text describes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import Kind, ScorerCard
from publisher_photo.pictures import distinct_images, distinct_pixels
from publisher_photo.seeing import SeeingParams, SeeingScorer
from publisher_photo.towers import Towers, check_towers, image_preparation, layout_of
from publisher_photo.weights import place_of, weights_digest
from publisher_photo.zero_shot import SIGLIP

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class NearestImagesParams(SeeingParams):
    """Parameters of ``reference``."""

    images: dict[str, str] = Field(
        min_length=1, description="Label -> folder of images that show it, as seen from the manifest."
    )
    kind: Kind = Field(default="style", description="Kind of the concepts that the labels belong to.")
    weights: str = Field(
        default=SIGLIP, min_length=1, description="Model in the layout of CLIP or SigLIP: folder, or hf: and a commit."
    )
    nearest: int = Field(default=5, ge=1, le=1000, description="Images of a label whose cosines are averaged.")
    threshold: float = Field(
        default=0.8,
        ge=-1,
        le=1,
        description="Mean cosine from which on an image shows a label. Choose it by calibration.",
    )


class NearestImages(SeeingScorer[NearestImagesParams]):
    """Compares each image with images of every label; the mean cosine with the nearest few is the strength."""

    name = "reference"
    summary = "styles, characters, logos: the label whose own images are nearest"

    def inputs(self) -> Sequence[str]:
        """Return the model and the folders of images."""
        return (self.params.weights, *dict.fromkeys(self.params.images.values()))

    def labels(self) -> Mapping[str, Sequence[str]]:
        """Return the labels that have images."""
        return {self.params.kind: tuple(self.params.images)}

    asked = labels

    def check_files(self) -> None:
        """Make sure that the model can be read, and that every label has enough images.

        Raises:
            PublisherError: not so.
        """
        check_towers(place_of(self.files, self.params.weights))
        for label, folder in self.params.images.items():
            distinct_pixels(place_of(self.files, folder), self.params.nearest, label)

    def card(self) -> ScorerCard:
        """Describe model, images and rule.

        Raises:
            PublisherError: the model is not there or not known, or a label has too few images.
        """
        folder = place_of(self.files, self.params.weights)
        layout_of(folder)
        counts = ", ".join(f"{label} {len(self._pictures(label))}" for label in self.params.images)
        few = f"the {self.params.nearest} nearest" if self.params.nearest > 1 else "the nearest one"
        return ScorerCard(
            weights=weights_digest(folder),
            preprocessing=str(image_preparation(folder)),
            decision=f"every label with a mean cosine of at least {self.params.threshold:g} with {few} of its images "
            f"({counts})",
            classes={self.params.kind: len(self.params.images)},
            calibration="",
        )

    def load(self, device: torch.device) -> None:
        """Load the model, and compute the vectors of all images.

        Raises:
            PublisherError: the model or an image cannot be read.
        """
        import torch

        self.towers = Towers(place_of(self.files, self.params.weights), device)
        self._own: dict[str, Tensor] = {}
        with torch.no_grad():
            for label in self.params.images:
                self._own[label] = torch.cat([self.towers.of_images(image) for image in self._pictures(label)])

    def unload(self) -> None:
        """Give the memory of the model and of the images back."""
        del self.towers, self._own

    def measured(self, images: Tensor, kind: str, labels: Sequence[str]) -> Tensor:  # noqa: ARG002 - there is one kind
        """Return the mean cosine of each image with its nearest images of each label, ``(n, labels)``."""
        import torch

        seen = self.towers.of_images(images)
        near = [(seen @ self._own[label].T).topk(self.params.nearest, dim=1).values.mean(1) for label in labels]
        return torch.stack(near, dim=1)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return the vectors of the images, ``(n, d)`` of length 1, for images of any size.

        Raises:
            ValueError: these are no images.
        """
        import torch

        with torch.no_grad():
            return torch.cat([self.towers.of_images(part) for part in images.split(32)]).float().cpu()

    def _pictures(self, label: str) -> list[Tensor]:
        return distinct_images(place_of(self.files, self.params.images[label]), self.params.nearest, label)
