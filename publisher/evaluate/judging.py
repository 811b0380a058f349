"""Let the scorers judge the images of both models, batch by batch, and keep what they said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.api import Concept, Judgement, Scorer, ScorerCard
from publisher.errors import CRASHES
from publisher.evaluate.asking import one_line
from publisher.evaluate.evidence import distance, pixels_sha256
from publisher.evaluate.tools import Unmeasured

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sight:
    """Both models' images of one request, as far as anybody has to know them."""

    base_sha256: str
    hardened_sha256: str
    distance: float
    judgements: Mapping[str, tuple[Judgement, Judgement] | str]
    """Scorer -> what it says of the base and of the hardened image, or why it says nothing."""


def ready(scorer: Scorer, device: str) -> ScorerCard:
    """Load a scorer.

    Raises:
        Unmeasured: it crashed, or nothing is known of its errors.
    """
    import torch

    try:
        card = scorer.card()
        scorer.load(torch.device(device))
    except CRASHES as error:  # a plugin may raise anything; its checks become unknown
        raise Unmeasured(f"the scorer {scorer.name!r} crashed: {one_line(error)}") from error
    if not card.calibration.strip():
        raise Unmeasured(f"the scorer {scorer.name!r} is uncalibrated: nothing is known of its errors")
    return card


@dataclass(frozen=True)
class Judged:
    """A batch of images of one model with what every scorer says of it."""

    images: torch.Tensor
    """``(n, 3, h, w)`` uint8."""
    said: Mapping[str, list[Judgement] | str]
    """Scorer -> one judgement an image, or why there is none."""


def judged(images: torch.Tensor, scorers: Mapping[str, Scorer]) -> Judged:
    """Ask every scorer about ``(n, 3, h, w)`` uint8."""
    return Judged(images, {name: _opinion(scorer, images) for name, scorer in scorers.items()})


def look(base: Judged, hardened: Judged) -> list[Sight]:
    """One sight for each pair of images."""
    said = {name: _paired(base.said[name], hardened.said[name]) for name in base.said}
    return [
        Sight(
            pixels_sha256(before),
            pixels_sha256(after),
            distance(before, after),
            {name: pairs if isinstance(pairs, str) else pairs[i] for name, pairs in said.items()},
        )
        for i, (before, after) in enumerate(zip(base.images, hardened.images, strict=True))
    ]


def _paired(base: list[Judgement] | str, hardened: list[Judgement] | str) -> list[tuple[Judgement, Judgement]] | str:
    if isinstance(base, str):
        return base
    return hardened if isinstance(hardened, str) else list(zip(base, hardened, strict=True))


def _opinion(scorer: Scorer, images: torch.Tensor) -> list[Judgement] | str:
    try:
        return _judge(scorer, images)
    except Unmeasured as error:
        return str(error)
    except CRASHES as error:  # a plugin may raise anything; its checks become unknown
        return f"the scorer {scorer.name!r} crashed: {one_line(error)}"


def _judge(scorer: Scorer, images: torch.Tensor) -> list[Judgement]:
    judgements = list(scorer.judge(images.float().div(255)))
    if len(judgements) != len(images):
        raise Unmeasured(f"the scorer {scorer.name!r} gave {len(judgements)} judgements of {len(images)} images")
    if not all(isinstance(judgement, Judgement) for judgement in judgements):
        raise Unmeasured(f"the scorer {scorer.name!r} gave something else than judgements")
    return [_rounded(judgement) for judgement in judgements]


def _rounded(judgement: Judgement) -> Judgement:
    """Validated anew (a plugin can build one past the validation), with scores to six digits."""
    scores = {kind: round(score, 6) for kind, score in judgement.scores.items()}
    if not all(0 <= score <= 1 for score in scores.values()):
        raise Unmeasured("the scorer gave a score that is no number in [0, 1]")
    return Judgement(labels=dict(judgement.labels), scores=scores)


def labelled(scorer: Scorer, name: str, images: torch.Tensor, concept: Concept) -> list[tuple[bool, str]]:
    """For each image, whether the scorer sees the concept, and what it sees."""
    said = judged(images, {name: scorer}).said[name]
    if isinstance(said, str):
        raise Unmeasured(said)
    if not all(concept.kind in judgement.labels for judgement in said):
        raise Unmeasured(f"the scorer {name!r} gave no judgement of the kind {concept.kind!r}")
    return [(judgement.shows(concept), judgement.labels[concept.kind]) for judgement in said]


def features(scorer: Scorer, images: torch.Tensor) -> torch.Tensor | None:
    """``(n, d)`` of length 1; None: the scorer has none."""
    import torch
    from torch.nn.functional import normalize

    found = scorer.features(images.float().div(255))
    if found is None:
        return None
    if found.ndim != 2 or len(found) != len(images) or not torch.isfinite(found).all():
        raise ValueError("not one finite vector for each image")
    return normalize(found.float(), dim=1)
