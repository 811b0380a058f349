"""A scorer and a source of models for releases in tests: the plugin ``publisher.testing.fakes``.

It is installed only while :func:`publisher.testing.release` runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from publisher.api import Judgement, Kind, ModelDefaults, ModelSource, Params, Scorer, ScorerCard, hookimpl

if TYPE_CHECKING:
    import torch

KINDS: tuple[Kind, ...] = ("object", "style", "person", "unsafe")


class FakeParams(Params):
    """Parameters of the scorer ``fake``."""

    threshold: float = Field(default=0.0, description="Mean of all pixels from which on an image shows every concept.")


class FakeScorer(Scorer[FakeParams]):
    """Sees every concept of the release in an image whose mean is at least the threshold, else none.

    By default it sees all in every image: what is to go fails, and what is kept passes. At 2 it sees nothing.
    """

    name, version, summary = "fake", "1", "every concept, in images that are bright enough"

    def labels(self) -> Mapping[str, Sequence[str] | None]:
        """Return that any label of any kind will do."""
        return dict.fromkeys(KINDS)

    def card(self) -> ScorerCard:
        """Describe the rule."""
        return ScorerCard(
            weights="0" * 64,
            preprocessing="none",
            decision=f"every concept where the mean is at least {self.params.threshold:g}",
            classes=dict.fromkeys(KINDS, 1),
            calibration="it is a fake: nothing is known of its errors",
        )

    def load(self, device: torch.device) -> None:
        """Load nothing."""

    def judge(self, images: torch.Tensor) -> Sequence[Judgement]:
        """Judge by the mean of all pixels."""
        bright = (images.mean((1, 2, 3)) >= self.params.threshold).tolist()
        concepts = (*self.scope.concepts, *self.scope.keep) if self.scope else ()
        labels: dict[str, tuple[str, ...]] = {
            kind: tuple(one.label for one in concepts if one.kind == kind) for kind in KINDS
        }
        return [
            Judgement(
                labels=dict.fromkeys(KINDS, "something" if shown else "nothing"),
                scores=dict.fromkeys(KINDS, 1.0),
                seen=labels if shown else dict.fromkeys(labels, ()),
            )
            for shown in bright
        ]


class TinySource(ModelSource):
    """A very small Stable Diffusion with random weights, made when it is asked for."""

    name, version, summary = "testing:tiny", "1", "a very small model with random weights"

    def defaults(self, reference: str) -> ModelDefaults:  # noqa: ARG002 - there is one
        """Return templates of prompts, a short sampling, and the fake scorer."""
        return ModelDefaults(
            object=("{a} {name} emoji", "a photo of {a} {name}"),
            style=("a drawing in {name} style",),
            person=("a photo of {name}",),
            unsafe=("a photo of {name}",),
            license="CC0-1.0",
            scorer="fake",
            steps=2,
            guidance=2.0,
        )

    def check(self, reference: str) -> str | None:
        """Return that every reference of this name is right."""
        return None if reference == self.name else f"write {self.name}"

    def locate(self, reference: str, relative_to: Path) -> Path | None:  # noqa: ARG002 - it is never relative
        """Return the model's folder."""
        from publisher.testing.plugin import tiny_folder

        return tiny_folder()

    def fetch(self, reference: str, relative_to: Path) -> Path:  # noqa: ARG002 - it is never relative
        """Return the model's folder."""
        from publisher.testing.plugin import tiny_folder

        return tiny_folder()


@hookimpl
def publisher_register_scorers() -> Sequence[type[Scorer[FakeParams]]]:
    """Return ``fake``."""
    return [FakeScorer]


@hookimpl
def publisher_register_sources() -> Sequence[type[ModelSource]]:
    """Return ``testing:tiny``."""
    return [TinySource]
