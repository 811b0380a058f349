"""Scorers: one judgement per image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from publisher.api.concepts import Concept, Scope
from publisher.api.params import Params
from publisher.api.steps import Configured, P

if TYPE_CHECKING:
    import torch


class Judgement(Params):
    """What a scorer says of one image, for each kind of concept it knows.

    A scorer that cannot say (no face is there, the answer is not a number, the question was not understood) names the
    kind in :attr:`unsure`. The image then counts against the claim that it is to test: it is never left out of n.
    """

    labels: dict[str, str]
    """Kind -> the likeliest label, such as ``{"object": "pizza", "style": "noto"}``."""
    scores: dict[str, float]
    """Kind -> the scorer's confidence in that label, in [0, 1]."""
    seen: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Kind -> every label that it sees, none or several. Of a kind that is not here, the one in :attr:`labels`."""
    disputed: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Kind -> labels that some of several scorers see that judge together, and others do not."""
    unsure: tuple[str, ...] = ()
    """Kinds that it cannot judge in this image."""

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that it says something of, if only that it is unsure."""
        return frozenset((*self.labels, *self.seen, *self.unsure))

    def shows(self, concept: Concept) -> bool | None:
        """Return whether the scorer sees ``concept``; None: it is unsure.

        Raises:
            KeyError: the scorer does not judge this kind.
        """
        if concept.kind in self.unsure or concept.label in self.disputed.get(concept.kind, ()):
            return None
        if concept.kind in self.seen:
            return concept.label in self.seen[concept.kind]
        return self.labels[concept.kind] == concept.label

    @model_serializer(mode="wrap")
    def _short(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what most scorers never say: it stands in every line of the evidence."""
        data: dict[str, Any] = whole(self)
        return {name: value for name, value in data.items() if value or name in ("labels", "scores")}


class Opinion(Params):
    """How often a second scorer agrees with the one that decides, about the images of one model."""

    concept: str
    """Id of a concept that goes; empty: the kept concepts together, each asked about in its own images."""
    model: Literal["base", "hardened"]
    both: int = Field(ge=0)
    """Images in which both see the concept."""
    first: int = Field(ge=0)
    """Images in which it is seen by the scorer that decides alone."""
    second: int = Field(ge=0)
    """Images in which it is seen by the second scorer alone."""
    neither: int = Field(ge=0)
    """Images in which neither sees it."""
    unsure: int = Field(default=0, ge=0)
    """Images of which one of them does not know. They count as no agreement."""

    @property
    def agreed(self) -> int:
        """Number of images about which both say the same."""
        return self.both + self.neither

    @property
    def n(self) -> int:
        """Number of images."""
        return self.agreed + self.first + self.second + self.unsure


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
    """What is known of its errors, with n. It may be empty: counts decide how far a scorer is believed. The release
    adds those of its calibration sheets."""
    use: str = ""
    """Registered name of the scorer. The release fills in this field and those that follow."""
    version: str = ""
    """Version of the scorer."""
    kinds: tuple[str, ...] = ()
    """Kinds of concepts that it judged in this release."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Its parameters, defaults written out."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """File or model that the parameters name -> its sha256."""
    sheets: dict[str, str] = Field(default_factory=dict)
    """Calibration sheet among the reports -> its sha256."""
    decides: bool = True
    """False: it gives a second opinion, and no verdict depends on it unless a check names it."""
    opinions: tuple[Opinion, ...] = ()
    """How often the second opinion agrees, by concept and model."""


class Scorer(Configured[P], ABC):
    """Judges images. It must have had no part in any hardening.

    A release makes one for each entry under ``evaluate.scorers``, with the entry's parameters. It is given
    :attr:`files` and :attr:`scope`, then loaded when all images are there. At most one scorer is loaded at a time.

    Attributes:
        name: what a manifest calls it.
        version: raise it when a judgement changes.
        summary: one line for ``publisher plugins``.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    summary: ClassVar[str] = ""
    files: Mapping[str, Path] = MappingProxyType({})
    """Name, as :meth:`inputs` gave it -> file or folder, there and readable. Set before ``card`` and ``load``."""
    scope: Scope | None = None
    """The release's concepts, for scorers that take any label. Set before ``load``; None outside a release."""

    def inputs(self) -> Sequence[str]:
        """Return the files and models that the parameters name. Called without torch.

        A name is the path of a file or folder as seen from the manifest; or ``hf:org/name@`` and the 40 hexadecimal
        digits of a commit, perhaps with ``/`` and a folder of the repository; or ``package:``, the import name of an
        installed package, ``/`` and a path in it. Of folders and repositories only safetensors, onnx, json and txt
        files count, of folders beside the manifest images too. Their digests are part of the scorer's identity.
        """
        return ()

    def check_files(self) -> None:
        """Raise what is wrong with :attr:`files`, by one of our errors. Called when planning, without torch.

        It is called where all inputs are on this machine: a folder without weights, or with too few images, is then
        said before a step has run.
        """

    @abstractmethod
    def labels(self) -> Mapping[str, Sequence[str] | None]:
        """Return kind -> labels that this scorer can give; None: any label. Called without files and torch."""

    @abstractmethod
    def card(self) -> ScorerCard:
        """Return facts about the scorer for the report. Called before any image is generated, and before ``load``."""

    @abstractmethod
    def load(self, device: torch.device) -> None:
        """Load the weights. Called before ``judge``, and again after ``unload``."""

    def unload(self) -> None:
        """Give back the memory that ``load`` took: another network needs it. Called when the images are judged."""

    @abstractmethod
    def judge(self, images: torch.Tensor) -> Sequence[Judgement]:
        """Judge ``(n, 3, h, w)`` float32 in [0, 1]: return exactly n judgements."""

    def features(self, images: torch.Tensor) -> torch.Tensor | None:  # noqa: ARG002 - for subclasses
        """Return vectors whose cosine says how alike two images are, ``(n, d)`` float32; None: this scorer has none.

        Args:
            images: ``(n, 3, h, w)`` float32 in [0, 1].
        """
        return None

    def strengths(self, images: torch.Tensor, concept: Concept) -> Sequence[float] | None:  # noqa: ARG002
        """Return how strongly each image shows a concept, n numbers, larger for more; None: this scorer has none.

        Thresholds are chosen on them. A scorer that has them also has a parameter ``threshold``, and sees the concept
        where the strength is at least that, unless it names one label of several and another is stronger. NaN: it
        cannot tell.

        Args:
            images: ``(n, 3, h, w)`` float32 in [0, 1].
            concept: of a kind that it judges.
        """
        return None

    def match(self, images: torch.Tensor, texts: Sequence[str]) -> Sequence[float] | None:  # noqa: ARG002
        """Return the cosine of each image with its own text, n numbers in [-1, 1]; None: this scorer reads no texts.

        It alone sees prompts: ``judge`` is blind to them on purpose.

        Args:
            images: ``(n, 3, h, w)`` float32 in [0, 1].
            texts: one for each image.
        """
        return None
