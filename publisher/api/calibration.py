"""What is known of a scorer's errors, in counts."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from publisher.api.params import Params


class Tally(Params):
    """How many images of how many the scorer says to show a concept."""

    hits: int = Field(ge=0)
    n: int = Field(ge=0)
    groups: tuple[tuple[int, int], ...] = ()
    """Hits and images of each prompt or folder, whose images resemble each other; empty: all are independent."""

    @model_validator(mode="after")
    def _sums(self) -> Self:
        hits, n = (sum(one[i] for one in self.groups) for i in (0, 1))
        if self.hits > self.n or any(not 0 <= a <= b for a, b in self.groups):
            raise ValueError("there are more hits than images")
        if self.groups and (hits, n) != (self.hits, self.n):
            raise ValueError("the groups do not add up to the whole")
        return self


class ScorerErrors(Params):
    """Counts of a scorer's errors about one concept: from a calibration sheet, or bounded by the base model's images.

    The base model's images need no labels. A scorer that is better than chance sees the concept in no larger share of
    images than its sensitivity allows. So the share seen in images that ask for the concept bounds the sensitivity from
    below, and the share seen in images that ask for something else bounds the false alarms from above.
    """

    source: str
    """File of the calibration sheet inside the package; empty: the base model's images."""
    seen: Tally
    """Images of the concept in which the scorer sees it."""
    false_alarms: Tally | None = None
    """Images of something else in which the scorer sees it. None: there are none to count."""
