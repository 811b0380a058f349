"""Calibrate a scorer: count its errors about one concept in images that people have sorted, or bound them for nothing.

Images are read and never copied; nothing but counts leaves.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from publisher.api import CalibrationSheet, Concept, Judgement, Sampling, ScorerCard, Tally
from publisher.engine.device import Device, choose, require
from publisher.engine.plan import PlannedModel, locate_model
from publisher.errors import CRASHES, PublisherError, UsageError
from publisher.evaluate.context import ModelUnderTest, ReleaseScorer, Setting, Unmeasured
from publisher.evaluate.dispatch import closed_after
from publisher.evaluate.finetune.data import AttackerImages
from publisher.evaluate.scorers import card_of, judge, loaded, require_kind
from publisher.evaluate.store import ImageStore
from publisher.manifest.nearest import suggestion
from publisher.manifest.resolve import Resolved, read
from publisher.manifest.scorers import ResolvedScorer
from publisher.registry import Registry, load_registry
from publisher.registry.own import own_metrics
from publisher.release.sorted_images import (
    Sides,
    SortedImage,
    agreed_sides,
    batches,
    generated_sides,
    halves,
    read_sides,
)
from publisher.release.tools import make_scorer

T = TypeVar("T")
THRESHOLD = "threshold"
"""Parameter of a scorer that has strengths."""
DIGITS = 6
"""Decimals of a threshold."""


@dataclass(frozen=True)
class Labelled:
    """Images that people have sorted."""

    positives: Path
    """Folder of images that show the concept."""
    negatives: Path
    """Folder of images that do not."""
    specificity: float = 0.98
    """Least specificity on the first half, where a threshold is chosen."""
    seed: int = 0
    """Of the shuffle."""
    about: str = ""
    """What the images are, and who labelled them."""
    again: tuple[Path, Path] | None = None
    """Folders of the same images as a second person sorted them; None: one did."""


class Calibration:
    """Calibration of one scorer of a manifest about one concept.

    Args:
        path: of the manifest.
        scorer: an entry's id under ``evaluate.scorers``, or the name of an installed scorer.
        concept: id of a concept of the manifest.

    Raises:
        PublisherError: the manifest, the model or the scorer cannot be used, or the scorer cannot see the concept.
    """

    def __init__(self, path: Path, scorer: str, concept: str) -> None:
        self.registry: Registry = load_registry()
        self.resolved: Resolved = read(path, self.registry.catalog())
        self.folder = path.parent
        self.entry = self._entry(scorer)
        self.concept: Concept = self._concept(concept)
        self.device: Device = choose(self.resolved.device, self.resolved.dtype)
        require(self.device)
        model = locate_model(self.resolved.model, self.registry, self.folder, fetch=True)
        if model is None:
            raise PublisherError("the source gave no model", where=self.resolved.model)
        self.model: PlannedModel = model

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's images, in pixels."""
        return self.model.folder.anatomy.latents.image_size

    def labelled(self, asked: Labelled) -> CalibrationSheet:
        """Count the scorer's errors in images that people have sorted.

        Half of each side chooses the threshold, if the scorer has strengths and the manifest gives none; the other half
        alone is counted.

        Args:
            asked: the images.

        Raises:
            UsageError: too few images, one that is on both sides, or that cannot be read.
            PublisherError: the scorer cannot judge them.
        """
        folders = asked.positives, asked.negatives
        sides = agreed_sides(folders, asked.again, self.size) if asked.again else read_sides(*folders, self.size)
        first, second = halves(sides, asked.seed)
        scorer, chosen = self.scorer(self.entry), None
        if THRESHOLD in scorer.params and THRESHOLD not in self.entry.given:
            threshold = self._threshold(scorer, first, asked.specificity)
            if threshold is not None:
                params = {**self.entry.params, THRESHOLD: threshold}
                scorer = self.scorer(self.entry.model_copy(update={"params": params}))
                chosen = self._tallies(scorer, first)
        return self._sheet(
            scorer,
            self._tallies(scorer, second),
            sides,
            method="labelled",
            about=asked.about,
            chosen_on=chosen,
            specificity=asked.specificity if chosen else None,
            seed=asked.seed,
        )

    def from_base(self, count: int, work: Path | None, progress: Callable[[int, int, str], None]) -> CalibrationSheet:
        """Bound the scorer's errors by images that the base model generates: nobody has to label them.

        Args:
            count: images of the concept, and as many of other concepts of its kind together.
            work: folder of images that were generated before; None: nothing is kept.
            progress: is told of the images.

        Raises:
            UsageError: the manifest has no other concept of this kind.
            PublisherError: the model generates no images, or the scorer cannot judge them.
        """
        scope = self.resolved.scope
        others = [
            one
            for one in (*scope.concepts, *scope.keep)
            if one.kind == self.concept.kind and one.label != self.concept.label
        ]
        if not others:
            what = f"the manifest has no other concept of the kind {self.concept.kind!r}: nothing bounds false alarms"
            raise UsageError(what, hint="Add some under keep, or sort images and give --positives and --negatives.")
        store = ImageStore(work / "images" if work else None)
        setting = Setting(self.device.name, self.device.dtype, store, self.folder, progress=progress)
        sampling: Sampling = self.resolved.evaluate.sampling
        base = ModelUnderTest.of(self.model.folder.path, self.model.folder.anatomy)
        place = self.resolved.evaluate.executor
        executor = self.registry.get("executor", place.use).make(place.params)
        with closed_after(executor, lambda _: None):
            generator = AttackerImages(base, scope, sampling, setting, executor)
            share = math.ceil(count / len(others))
            asked = [generator.plainly(self.concept, count)]
            asked.append(tuple(request for one in others for request in generator.plainly(one, share)))
            try:
                images = [generator.generated(one, "images of the base model") for one in asked]
            except Unmeasured as error:
                raise PublisherError(str(error), where=self.resolved.model) from error
        prompts = [[request.prompt for request in one] for one in asked]
        scorer, sides = self.scorer(self.entry), generated_sides(images, prompts)
        return self._sheet(
            scorer,
            self._tallies(scorer, sides),
            sides,
            method="base",
            about=f"images that the base model {self.resolved.model} generates; the counts are bounds",
            seed=sampling.seed,
        )

    def scorer(self, entry: ResolvedScorer) -> ReleaseScorer:
        """Make the scorer with these parameters."""
        made = self.registry.get("scorer", entry.use)
        plain = entry.model_copy(update={"calibration": ()})
        return make_scorer(entry.id, made, plain, self.resolved, self.folder, fetch=True)

    def _entry(self, name: str) -> ResolvedScorer:
        entries = {one.id: one for one in self.resolved.evaluate.scorers}
        if name in entries:
            return entries[name]
        installed = self.registry.get("scorer", name)
        scorer = installed.make({})
        return ResolvedScorer(id=name, use=name, kinds=tuple(scorer.labels()), params=scorer.params.as_json())

    def _concept(self, name: str) -> Concept:
        try:
            return self.resolved.scope.concept(name)
        except KeyError as error:
            ids = [one.id for one in (*self.resolved.scope.concepts, *self.resolved.scope.keep)]
            hint = suggestion(name, ids, "Concepts")
            raise UsageError(f"the manifest has no concept {name!r}", where="--concept", hint=hint) from error

    @property
    def _setting(self) -> Setting:
        return Setting(self.device.name, self.device.dtype, root=self.folder)

    def _card(self, scorer: ReleaseScorer) -> ScorerCard:
        return _measured(scorer, lambda: card_of(scorer, self._setting))

    def _tallies(self, scorer: ReleaseScorer, sides: Sides) -> tuple[Tally, Tally]:
        return self._tally(scorer, sides.positives), self._tally(scorer, sides.negatives, alarm=True)

    def _tally(self, scorer: ReleaseScorer, images: Sequence[SortedImage], *, alarm: bool = False) -> Tally:
        """Count the images in which the scorer sees the concept; where it is unsure, the worse is counted."""
        self._card(scorer)
        said = _measured(scorer, lambda: self._judged(scorer, images))
        shows = [alarm if (seen := one.shows(self.concept)) is None else seen for one in said]
        folders: dict[str, list[bool]] = {}
        for image, seen in zip(images, shows, strict=True):
            folders.setdefault(image.folder, []).append(seen)
        return Tally.of(folders)

    def _judged(self, scorer: ReleaseScorer, images: Sequence[SortedImage]) -> list[Judgement]:
        found: list[Judgement] = []
        with loaded(scorer, self._setting):
            for batch in batches(images):
                said = judge(scorer, batch)
                if isinstance(said, str):
                    raise Unmeasured(said)
                found += said
        require_kind(scorer.id, found, self.concept)
        return found

    def _threshold(self, scorer: ReleaseScorer, half: Sides, specificity: float) -> float | None:
        """Return the threshold with the largest sensitivity among those specific enough; None: there are no strengths.

        Of several with one sensitivity it is the largest.

        Raises:
            UsageError: none is specific enough.
        """
        positives = _measured(scorer, lambda: self._strengths(scorer, half.positives))
        negatives = _measured(scorer, lambda: self._strengths(scorer, half.negatives))
        if positives is None or negatives is None:
            return None
        candidates: list[float] = sorted(
            {math.floor(one * 10**DIGITS) / 10**DIGITS for one in positives if not math.isnan(one)}
        )
        allowed = [
            one
            for one in candidates
            if sum(math.isnan(other) or other >= one for other in negatives) <= (1 - specificity) * len(negatives)
        ]
        if not allowed:
            raise UsageError(
                f"no threshold of the scorer {scorer.id!r} is specific enough and sees one image of"
                f" {self.concept.id!r}: it cannot tell these images apart",
                hint="Take another scorer, or ask for less with --specificity.",
            )
        return allowed[0]

    def _strengths(self, scorer: ReleaseScorer, images: Sequence[SortedImage]) -> list[float] | None:
        found: list[float] = []
        with loaded(scorer, self._setting) as instance:
            for batch in batches(images):
                try:
                    strengths = instance.strengths(batch.float().div(255), self.concept)
                except CRASHES as error:  # a plugin may raise anything
                    raise Unmeasured(f"its strengths crashed: {type(error).__name__}: {error}") from error
                if strengths is None:
                    return None
                if len(strengths) != len(batch) or any(math.isinf(one) for one in strengths):
                    raise Unmeasured("it gave not one finite strength for each image")
                found += map(float, strengths)
        return found

    def _sheet(
        self,
        scorer: ReleaseScorer,
        tallies: tuple[Tally, Tally],
        sides: Sides,
        **fields: Any,
    ) -> CalibrationSheet:
        card = self._card(scorer)
        salt = secrets.token_hex(8)
        return CalibrationSheet(
            scorer=scorer.scorer.name,
            version=scorer.scorer.version,
            weights=card.weights,
            inputs=dict(scorer.inputs),
            params=scorer.params,
            kind=self.concept.kind,
            label=self.concept.label,
            size=self.size,
            positives=tallies[0],
            negatives=tallies[1],
            salt=salt,
            digests=sides.digests(salt),
            duplicates=sides.duplicates,
            labellers=sides.labellers,
            **fields,
        )


def worth(sheet: CalibrationSheet, clean: int) -> tuple[str, bool]:
    """Return what a sheet is worth in one sentence, and whether it is worth nothing.

    Args:
        sheet: of a calibration.
        clean: images without the concept that a release would judge.
    """
    metric = own_metrics()["concept-rate"]()
    metric.errors = {sheet.label: sheet.errors("the sheet")}
    try:
        best = metric.best(metric.Params.parse({}), clean)
    except ValueError as error:
        return str(error), True
    return f"none of {clean} images would then show: at most {best.high:.2%}" if best else "", False


def _measured(scorer: ReleaseScorer, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except Unmeasured as error:
        raise PublisherError(str(error), where=f"scorer {scorer.id!r}") from error
