"""Scorers: one judgement per image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from publisher.api.concepts import Concept
from publisher.api.params import Params

if TYPE_CHECKING:
    import torch


class Judgement(Params):
    """What a scorer says of one image, for each kind of concept it knows."""

    labels: dict[str, str]
    """Kind -> label, such as ``{"object": "pizza", "style": "noto"}``."""
    scores: dict[str, float]
    """Kind -> the scorer's confidence in that label, in [0, 1]."""

    def shows(self, concept: Concept) -> bool:
        """Whether the scorer sees ``concept``.

        Raises:
            KeyError: the scorer does not judge this kind.
        """
        return self.labels[concept.kind] == concept.label


class ScorerCard(Params):
    """What a reader has to know of a scorer to believe it."""

    weights: str
    """sha256 of its weights."""
    preprocessing: str
    """What is done to the pixels."""
    decision: str
    """How a label is chosen: arg-max, or a threshold and its value."""
    classes: dict[str, int]
    """Kind -> number of labels."""
    calibration: str
    """What is known of its errors, with n."""


class Scorer(ABC):
    """Judges images. It must have had no part in any hardening.

    Attributes:
        name: what a manifest calls it.
        version: raise it when a judgement changes.
        summary: one line for ``publisher plugins``.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def labels(cls) -> Mapping[str, Sequence[str]]:
        """Kind -> labels that this scorer can give. Called without torch."""

    @abstractmethod
    def card(self) -> ScorerCard:
        """Facts about the scorer for the report."""

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Load the weights; called once before ``judge``."""

    @abstractmethod
    def judge(self, images: torch.Tensor) -> Sequence[Judgement]:
        """Judge ``(n, 3, h, w)`` float32 in [0, 1]: exactly n judgements."""

    def features(self, images: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002 - for subclasses
        """Vectors whose cosine says how alike two images are, ``(n, d)`` float32; None: this scorer has none.

        Args:
            images: ``(n, 3, h, w)`` float32 in [0, 1].
        """
        return None
