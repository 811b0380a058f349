"""Metrics: many judgements to one number with n and an interval."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from publisher.api.calibration import ScorerErrors
from publisher.api.params import Params
from publisher.api.steps import P, Parametrised

if TYPE_CHECKING:
    import numpy as np

    from publisher.api.training import Trial

    Array = np.ndarray[Any, np.dtype[np.float64]]


class Request(Params):
    """What an image was asked for with, whatever its seed: images of equal requests differ by chance alone."""

    concept: str
    """Id of the concept that it asks for."""
    prompt: str
    """May be empty."""
    negative_prompt: str = ""
    steps: int | None = None
    """Sampling steps; None: not told."""
    guidance: float | None = None
    """Classifier-free guidance scale; None: not told."""


class PixelPair(Params):
    """One image of the base model and one of the hardened model, generated after the same request."""

    concept: str
    """Id of the concept that was asked for."""
    prompt: str
    """Images of one prompt are not independent: metrics may cluster by it."""
    seed: int
    """Of the initial noise."""
    negative_prompt: str = ""
    steps: int | None = Field(default=None, ge=1)
    """Sampling steps; None: not told."""
    guidance: float | None = Field(default=None, ge=0)
    """Classifier-free guidance scale; None: not told."""
    distance: float = Field(ge=0)
    """Root mean square difference of the two images, on [0, 1] pixels."""
    permeability: float | None = Field(default=None, ge=0)
    """The sum of all membranes' permeabilities for this prompt; None: none was attached."""
    base_match: float | None = Field(default=None, ge=-1, le=1)
    """Cosine of the base model's image with the prompt; None: the metric does not read it."""
    hardened_match: float | None = Field(default=None, ge=-1, le=1)
    """Cosine of the hardened model's image with the prompt; None as for ``base_match``."""

    @property
    def request(self) -> Request:
        """Everything that was asked for, the seed excepted."""
        return Request(
            concept=self.concept,
            prompt=self.prompt,
            negative_prompt=self.negative_prompt,
            steps=self.steps,
            guidance=self.guidance,
        )


class Observation(PixelPair):
    """A pair of images that a scorer has judged."""

    base: bool
    """The scorer sees the concept in the base model's image."""
    hardened: bool
    """The scorer sees the concept in the hardened model's image."""


UNBOUNDED = 1e6
"""Upper end of an interval that ends beyond the last evaluation step: no gate from above may hold there."""
LEAST_DISTANCE = 0.1
"""Distance of the base model from a floor within which an attack says nothing: ten points."""


class Interval(Params):
    """A number that says how well it is known."""

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int = Field(ge=0)
    """Observations behind it."""
    method: str
    """How the interval was made, such as ``"Clopper-Pearson 95%"``."""


class Measurement(Params):
    """What a metric found."""

    hardened: Interval
    """The number that the gate looks at: where the scorer's errors are known, corrected for them."""
    seen: Interval | None = None
    """The same as the scorer sees it. None: nothing was corrected."""
    base: Interval | None = None
    """The control: the same number of the base model, where it exists."""
    by_concept: dict[str, Interval] = Field(default_factory=dict)
    """The same for each concept alone."""
    prompts: int | None = Field(default=None, ge=0)
    """Distinct prompts among the n images: the interval is about these prompts and new seeds. None: n are no images."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Anything else worth showing: p-values, worst concepts, quantiles. JSON only."""
    notes: tuple[str, ...] = ()
    """What must be known to read the number, in short sentences without a full stop. Every form of the report shows
    them beside it."""


class Metric(Parametrised[P], ABC):
    """Turns observations into a measurement. Torch-free and deterministic.

    Attributes:
        name: what a check calls it.
        version: raise it when the same observations give another number, or the resistance changes.
        better: whether ``"lower"`` or ``"higher"`` is better.
        unit: for the report: ``"share"``, ``"points"``, ``"rms"``.
        concept_figure: what the numbers of single concepts are, where they are not the check's number once more:
            ``"share of the gain that is left"``.
        concept_unit: unit of those numbers; empty: ``unit``.
        summary: one line for ``publisher plugins``.
        resistance: whether a better number says that a concept is harder to get. Checks of such metrics alone stand in
            the report's first table, which says what it takes to get a concept back.
        judged: False for a metric that reads pixels alone. It is given :class:`PixelPair`, and its checks need no
            scorer.
        matches: True for a metric that reads how well images fit their prompts, for which it needs a scorer that reads
            texts.
        errors: concept's id -> counts of the errors of the scorer that judges it, for rates that take account of them.
            The release sets them before ``measure`` and ``best``; empty outside a release.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    better: ClassVar[Literal["lower", "higher"]]
    unit: ClassVar[str] = "share"
    concept_figure: ClassVar[str] = ""
    concept_unit: ClassVar[str] = ""
    summary: ClassVar[str] = ""
    resistance: ClassVar[bool] = False
    judged: ClassVar[bool] = True
    matches: ClassVar[bool] = False
    errors: Mapping[str, ScorerErrors] = MappingProxyType({})

    @abstractmethod
    def measure(self, params: P, observations: Sequence[Observation]) -> Measurement:
        """Return the number of these observations; at least one.

        Raises:
            ValueError: too few observations to say anything; the check becomes *unknown*.
        """

    @abstractmethod
    def best(self, params: P, n: int) -> Interval | None:
        """Return the best that n observations could show: if that breaks a gate, the gate cannot be decided with n.

        None where it cannot be said beforehand.

        Raises:
            ValueError: n is too few for :meth:`measure`.
        """


class SetMetric(Metric[P], ABC):
    """Compares all images of the hardened model with all of the base model, by a scorer's features."""

    judged: ClassVar[bool] = False

    def measure(self, params: P, observations: Sequence[Observation]) -> Measurement:  # noqa: ARG002
        """Refuse: without features there is nothing to compare.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the metric {self.name!r} needs the features of a scorer")

    @abstractmethod
    def compare(self, params: P, pairs: Sequence[PixelPair], base: Array, hardened: Array) -> Measurement:
        """Return the number of these images.

        Args:
            params: of the metric.
            pairs: what was asked for, in the order of the check.
            base: features of the base model's images in that order, ``(n, d)``, each row of length 1, float64.
            hardened: the same of the hardened model's images.

        Raises:
            ValueError: too few images to say anything; the check becomes *unknown*.
        """


class CurveMetric(Metric[P], ABC):
    """Turns the trials of an attack by training into a measurement. Checks pair it with such an attack alone."""

    least_trials: ClassVar[int] = 1
    """Trials of each concept that it needs: with fewer, the check cannot be decided, and ``plan`` says so."""
    features: ClassVar[bool] = False
    """It reads :attr:`Trial.similarity`, which needs a scorer that has features."""

    def measure(self, params: P, observations: Sequence[Observation]) -> Measurement:  # noqa: ARG002
        """Refuse: single images are no curve.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the metric {self.name!r} needs an attack that trains")

    def require(self, params: P, concepts: Sequence[str], controls: Sequence[str]) -> None:
        """Make sure that trials of these can be read at all: asked by ``plan``, before anything is trained.

        Args:
            params: of the metric.
            concepts: ids of the check's concepts.
            controls: names of the models that are attacked beside the hardened one.

        Raises:
            ValueError: whatever the trials show, :meth:`read` will refuse them; the check cannot be decided.
        """

    @abstractmethod
    def read(self, params: P, trials: Sequence[Trial]) -> Measurement:
        """Return the number of these trials: of the hardened model and of all controls, of all concepts of the check.

        Raises:
            ValueError: too little to say anything, or a control that this metric needs is missing; the check becomes
                *unknown*.
        """
