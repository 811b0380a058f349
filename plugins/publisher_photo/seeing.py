"""What all scorers of this package share: an image shows every label whose strength reaches the threshold."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from publisher.api import Concept, Judgement, Params, Scorer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NOTHING = "nothing"
"""What the record calls an image that shows none of the labels."""
BATCH = 32
"""Images that go through a network together."""


class SeeingParams(Params):
    """Parameters of every scorer here."""

    threshold: float
    """Strength from which on an image shows a label."""


Q = TypeVar("Q", bound=SeeingParams)


class SeeingScorer(Scorer[Q]):
    """A scorer that gives every image and label a strength, and compares it with its parameter ``threshold``.

    Several labels can be seen in one image, or none. Where a strength is not a number, the scorer is unsure.
    """

    version = "1"

    @abstractmethod
    def asked(self) -> Mapping[str, Sequence[str]]:
        """Return kind -> labels that images are measured for, those of the scope where any label will do."""

    @abstractmethod
    def measured(self, images: Tensor, kind: str, labels: Sequence[str]) -> Tensor:
        """Return the strength of each label in each image, ``(n, labels)``, for at most :data:`BATCH` images.

        Args:
            images: ``(n, 3, h, w)`` float32 in [0, 1].
            kind: of the labels.
            labels: some of those that the scorer can give.
        """

    def judge(self, images: torch.Tensor) -> Sequence[Judgement]:
        """Compare strengths with the threshold.

        Raises:
            ValueError: these are no images, or no label is asked for.
        """
        asked = {kind: tuple(labels) for kind, labels in self.asked().items() if labels}
        if not asked:
            raise ValueError(f"{self.name} takes any label, so it needs the concepts of a release to know which")
        found = {kind: self._rows(images, kind, labels) for kind, labels in asked.items()}
        return [
            self._judgement({kind: dict(zip(asked[kind], rows[i], strict=True)) for kind, rows in found.items()})
            for i in range(len(images))
        ]

    def strengths(self, images: torch.Tensor, concept: Concept) -> Sequence[float]:
        """Return how strongly each image shows the concept; NaN: it cannot tell."""
        return [row[0] for row in self._rows(images, concept.kind, (concept.label,))]

    def _rows(self, images: Tensor, kind: str, labels: Sequence[str]) -> list[list[float]]:
        import torch

        from publisher_photo.pixels import checked

        with torch.no_grad():
            parts = [self.measured(part, kind, labels).float().cpu() for part in checked(images).split(BATCH)]
        rows: list[list[float]] = torch.cat(parts).tolist() if parts else []
        return rows

    def _judgement(self, strengths: Mapping[str, Mapping[str, float]]) -> Judgement:
        labels, scores, seen, unsure = {}, {}, {}, []
        for kind, found in strengths.items():
            if any(math.isnan(strength) for strength in found.values()):
                unsure.append(kind)
                continue
            seen[kind] = tuple(label for label, strength in found.items() if strength >= self.params.threshold)
            best = max(found, key=lambda label: found[label])
            labels[kind] = best if best in seen[kind] else NOTHING
            scores[kind] = min(max(found[best], 0.0), 1.0)
        return Judgement(labels=labels, scores=scores, seen=seen, unsure=tuple(unsure))
