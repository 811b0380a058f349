"""What is known of a scorer's errors, in counts; and the calibration sheet that carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from publisher.api.params import Params


class Tally(Params):
    """How many images of how many the scorer says to show a concept."""

    hits: int = Field(ge=0)
    n: int = Field(ge=0)
    groups: tuple[tuple[int, int], ...] = ()
    """Hits and images of each prompt or folder, whose images resemble each other; empty: all are independent."""

    @classmethod
    def of(cls, seen: Mapping[Any, Sequence[bool]]) -> Self:
        """Return the tally of images.

        Args:
            seen: prompt or folder -> for each of its images, whether the concept is seen.
        """
        groups = tuple((sum(hits), len(hits)) for hits in seen.values())
        hits, n = (sum(group[i] for group in groups) for i in (0, 1))
        repeated = len(groups) > 1 and any(count > 1 for _, count in groups)
        return cls(hits=hits, n=n, groups=groups if repeated else ())

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


class Agreement(Params):
    """How far two people sorted the same images alike."""

    alike: int = Field(ge=0)
    """Images that both put on the same side: these alone are counted."""
    n: int = Field(ge=0)
    """Images that both sorted."""


class CalibrationSheet(Params):
    """Counts of a scorer's errors about one concept, and what they hold for.

    It holds for this scorer, version, weights, parameters, label and image size alone. It names no image: of the sets
    there are counts, and one digest with a salt.
    """

    calibration: Literal[1] = 1
    """Version of this schema."""
    scorer: str
    """Registered name of the scorer."""
    version: str
    """Of the scorer."""
    weights: str
    """sha256 of its weights, as its card has it."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """File or model that its parameters name -> sha256."""
    params: dict[str, Any]
    """Its parameters, defaults written out; a chosen threshold is among them."""
    kind: str
    """Kind of the concept."""
    label: str
    """What the scorer calls the concept."""
    size: tuple[int, int]
    """Height and width of the images, in pixels."""
    method: Literal["labelled", "base"]
    """Whether people have sorted the images, or the base model has generated them: then the counts are bounds."""
    about: str = ""
    """What the images are, and who has labelled them, in free text."""
    positives: Tally
    """Images of the concept in which the scorer sees it. None of them took part in choosing the threshold."""
    negatives: Tally
    """Images of something else in which the scorer sees it, of which the same is true."""
    chosen_on: tuple[Tally, Tally] | None = None
    """The same of the images on which the threshold was chosen; None: it was not chosen."""
    specificity: float | None = None
    """Least specificity that was asked for when it was chosen."""
    seed: int
    """Of the shuffle that halved the images, or the first of the generated images."""
    duplicates: int = Field(default=0, ge=0)
    """Images that were left out because their pixels were there already."""
    labellers: Agreement | None = None
    """Agreement of two people who sorted the images; None: one did, or nobody."""
    salt: str
    """Random hexadecimal digits in front of the lists that are digested."""
    digests: tuple[str, str]
    """sha256 over salt and sorted digests of the pixels of all positives, and of all negatives."""

    def errors(self, source: str) -> ScorerErrors:
        """Return the counts of the errors.

        Args:
            source: file of the sheet.
        """
        return ScorerErrors(source=source, seen=self.positives, false_alarms=self.negatives)

    def difference(self, **facts: Any) -> str:
        """Return what the sheet says otherwise than these facts, in one sentence; empty: it holds for them.

        Args:
            facts: fields of the sheet by name.
        """
        for name, value in facts.items():
            mine = getattr(self, name)
            if mine == value:
                continue
            if isinstance(mine, dict) and isinstance(value, dict):
                key = next(key for key in sorted({*mine, *value}) if mine.get(key) != value.get(key))
                return f"its {name} have {key!r} {_words(mine, key)}, here it is {_words(value, key)}"
            return f"its {name} is {mine!r}, here it is {value!r}"
        return ""


def _words(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "missing"
