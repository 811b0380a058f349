from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from pydantic import Field

from publisher.api import Concept, ScorerCard
from publisher_photo.seeing import SeeingParams, SeeingScorer


class ByColourParams(SeeingParams):
    threshold: float = Field(default=0.5)


class ByColour(SeeingScorer[ByColourParams]):
    """Sees red, green and blue as strongly as their largest value; it cannot tell of an image without any."""

    name = "by-colour"

    def labels(self) -> Mapping[str, Sequence[str]]:
        return {"object": ("red", "green", "blue")}

    asked = labels

    def card(self) -> ScorerCard:
        raise NotImplementedError

    def load(self, device: torch.device) -> None:
        pass

    def measured(self, images: torch.Tensor, kind: str, labels: Sequence[str]) -> torch.Tensor:
        assert len(images) <= 32
        largest = images.amax((2, 3))
        largest[largest.amax(1) == 0] = math.nan
        return torch.stack([largest[:, ("red", "green", "blue").index(label)] for label in labels], dim=1)


def colours(*values: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(values)[:, :, None, None].expand(-1, -1, 4, 6)


def test_an_image_shows_every_label_that_reaches_the_threshold() -> None:
    both, none = ByColour().judge(colours((0.5, 0.9, 0.1), (0.3, 0.2, 0.1)))
    assert (both.seen, both.labels) == ({"object": ("red", "green")}, {"object": "green"})
    assert both.scores["object"] == pytest.approx(0.9)
    assert (none.seen, none.labels) == ({"object": ()}, {"object": "nothing"})


def test_where_a_strength_is_no_number_the_scorer_is_unsure_and_says_no_label() -> None:
    (said,) = ByColour().judge(colours((0.0, 0.0, 0.0)))
    assert said.unsure == ("object",)
    assert not said.labels
    red = Concept(id="red", name="red", label="red", prompts=("red",))
    assert said.shows(red) is None
    assert math.isnan(ByColour().strengths(colours((0.0, 0.0, 0.0)), red)[0])


def test_the_threshold_is_compared_with_the_strengths_that_calibration_reads() -> None:
    images = (
        torch.rand(70, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        * torch.linspace(0.1, 1, 70)[:, None, None, None]
    )
    green = Concept(id="green", name="green", label="green", prompts=("green",))
    strengths = ByColour().strengths(images, green)
    cut = sorted(strengths)[40]
    said = ByColour(ByColourParams(threshold=cut)).judge(images)
    assert [one.shows(green) for one in said] == [strength >= cut for strength in strengths]
    assert sum(strength >= cut for strength in strengths) == 30
