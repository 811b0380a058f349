"""Attacks by training: every trial on every model, drawn and judged, each kept so that an interrupted run goes on.

The attacker has the weights: membranes that come with a package are left off, whatever the check says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from publisher.api import Concept, Sampling, Scope
from publisher.api.evidence import TrialRow
from publisher.errors import CRASHES, PublisherError
from publisher.evaluate.asking import one_line
from publisher.evaluate.courses import Course, Desk, Job
from publisher.evaluate.dispatch import dispatch
from publisher.evaluate.evidence import pixels_sha256
from publisher.evaluate.freezing import frozen_digest
from publisher.evaluate.judging import features, labelled
from publisher.evaluate.lessons import HELD_OUT, Materials
from publisher.evaluate.prepared import Prepared
from publisher.evaluate.tools import Arms, Setting, Tools, Unmeasured
from publisher.evaluate.trials import Trained, TrialTask, TrialTasks, perform, seed_of
from publisher.runtime.meter import Meter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Relearned:
    """All trials of a check."""

    rows: tuple[TrialRow, ...]
    """Of the hardened model first, then of the controls in their order; by concept, by number."""
    seconds: float
    """Of one training step on the hardened model, here; where trials ran side by side, of each of them."""


def relearn(
    checks: Sequence[Prepared], scope: Scope, arms: Arms, tools: Tools, sampling: Sampling, setting: Setting
) -> dict[str, Relearned | Unmeasured]:
    """Make all trials of these checks.

    Args:
        checks: of attacks by training.
        scope: the concepts.
        arms: the hardened model and all controls.
        tools: scorers that are loaded, and the executor.
        sampling: how images are drawn.
        setting: store, device, progress. Trials run in float32 whatever it says.

    Returns:
        Check's id -> its trials, or why there are none. A trial that lost its numbers is among them, with its problem.

    Raises:
        PublisherError: the disk is full.
    """
    return _School(scope, arms, tools, sampling, replace(setting, dtype="float32")).teach(checks)


@dataclass(eq=False)
class _School:
    scope: Scope
    arms: Arms
    tools: Tools
    sampling: Sampling
    setting: Setting
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Key -> what was found."""
    problems: dict[str, str] = field(default_factory=dict)
    """Key -> why nothing was."""
    trained_on: dict[Course, torch.Tensor | None] = field(default_factory=dict)
    """Features of the images that are trained on; None: the scorer has none."""

    def teach(self, checks: Sequence[Prepared]) -> dict[str, Relearned | Unmeasured]:
        """All trials of all checks, each once."""
        courses: dict[str, list[Course] | Unmeasured] = {}
        for check in checks:
            try:
                courses[check.check.id] = [self.desk.course(check, concept) for concept in check.concepts]
            except Unmeasured as error:
                courses[check.check.id] = error
        self._make([course for found in courses.values() if isinstance(found, list) for course in found])
        return {
            name: found if isinstance(found, Unmeasured) else self._relearned(found) for name, found in courses.items()
        }

    @cached_property
    def desk(self) -> Desk:
        """Where trials are planned."""
        return Desk(self.scope, self.arms, self.tools, self.sampling, self.setting)

    @property
    def materials(self) -> Materials:
        """Images of the base model."""
        return self.desk.materials

    def _make(self, courses: Sequence[Course]) -> None:
        """Run the trials that are not in the store, as many at a time as run side by side."""
        jobs = list(self._missing(courses))
        material = {course: self._material(course) for course in dict.fromkeys(job.course for job in jobs)}
        jobs = [job for job in jobs if material[job.course]]
        if not jobs:
            return
        workers = self.desk.workers
        chunks = [jobs[start : start + workers] for start in range(0, len(jobs), workers)]
        tasks = [TrialTasks(tuple(_task(job, material, self) for job in chunk), workers) for chunk in chunks]
        waiting = iter(chunks)
        with Meter(self.setting.progress, sum(job.course.cost for job in jobs), _words(jobs[0])) as meter:
            try:
                for found in dispatch(self.tools.executor, perform, tasks, _is_trained):
                    chunk = next(waiting)
                    for job, trained in zip(chunk, found, strict=True):
                        self._keep(job, trained)
                    meter.text = _words(chunk[-1])
                    meter.settle(sum(job.course.cost for job in chunk))
            except Unmeasured as error:
                self.problems |= {job.key: str(error) for chunk in waiting for job in chunk}

    def _missing(self, courses: Sequence[Course]) -> Iterator[Job]:
        seen = set()
        for course in courses:
            for name in course.arms:
                for number in range(course.params.trials):
                    key = course.job(name, number)
                    stored = None if key in seen else self.setting.store.note(key)
                    if stored is not None:
                        self.notes[key] = stored
                    elif key not in seen:
                        yield Job(key, course, name, number)
                    seen.add(key)

    def _material(self, course: Course) -> _Material | None:
        try:
            images = self.materials.attackers(course.concept, course.images)
            prior = self.materials.drawn(course.prior) if course.prior else images[:0]
        except (Unmeasured, PublisherError) as error:
            for name in course.arms:
                self.problems |= dict.fromkeys(
                    (course.job(name, number) for number in range(course.params.trials)), str(error)
                )
            return None
        return _Material(images[HELD_OUT:], images[:HELD_OUT], prior)

    def _keep(self, job: Job, trained: Trained) -> None:
        try:
            if trained.crash:
                raise Unmeasured(trained.crash)  # noqa: TRY301 - one place that says why
            note = self._note(job.course, trained)
        except Unmeasured as error:
            self.problems[job.key] = str(error)
            return
        self.notes[job.key] = {**note, "similarity": []}
        try:
            self.notes[job.key]["similarity"] = self._similarity(job.course, trained.images)
        except CRASHES as error:  # a plugin may raise anything; metrics that read it become unknown
            self.setting.warn(f"the scorer {job.course.prepared.scorer!r} gave no features: {one_line(error)}")
        else:
            self.setting.store.put_note(job.key, self.notes[job.key])

    def _note(self, course: Course, trained: Trained) -> dict[str, Any]:
        """What is kept of a trial, as JSON; of its images only what was seen of them."""
        name = course.prepared.scorer
        seen = [labelled(self.tools.scorers[name], name, images, course.concept) for images in trained.images]
        return {
            "horizons": list(course.params.horizons[: len(trained.images)]),
            "hits": [sum(shows for shows, _ in images) for images in seen],
            "labels": [[label for _, label in images] for images in seen],
            "sha256": [[pixels_sha256(image) for image in images] for images in trained.images],
            "losses": trained.losses,
            "problem": trained.problem,
            "seconds": trained.seconds / trained.steps if trained.steps else 0.0,
        }

    def _similarity(self, course: Course, images: Sequence[torch.Tensor]) -> list[float]:
        """Mean cosine of every drawn image with every image that was trained on; empty: the scorer has no features."""
        scorer = self.tools.scorers[course.prepared.scorer]
        if course not in self.trained_on:
            self.trained_on[course] = features(
                scorer, self.materials.attackers(course.concept, course.images)[HELD_OUT:]
            )
        reference = self.trained_on[course]
        if reference is None:
            return []
        found = [features(scorer, drawn) for drawn in images]
        return [round(float((one @ reference.T).mean()), 6) for one in found if one is not None]

    def _relearned(self, courses: Sequence[Course]) -> Relearned | Unmeasured:
        try:
            rows = [
                self._row(course, name, number)
                for name in courses[0].arms
                for course in courses
                for number in range(course.params.trials)
            ]
        except Unmeasured as error:
            return error
        seconds = [
            self.notes[course.job("hardened", number)].get("seconds", 0.0)
            for course in courses
            for number in range(course.params.trials)
        ]
        return Relearned(tuple(rows), sum(seconds) / len(seconds))

    def _row(self, course: Course, name: str, number: int) -> TrialRow:
        key = course.job(name, number)
        if key not in self.notes:
            reason = self.problems.get(key, "it is missing")
            raise Unmeasured(f"trial {number} of {course.concept.id!r} on the model {name!r} failed: {reason}")
        note = self.notes[key]
        try:
            return TrialRow.parse(
                {
                    "check": course.prepared.check.id,
                    "model": course.arms[name].digest,
                    "frozen": frozen_digest(course.frozen(name, number)),
                    "captions": course.captions,
                    "prompts": [request.prompt for request in course.requests],
                    "seeds": [request.seed for request in course.requests],
                    "labels": note["labels"],
                    "sha256": note["sha256"],
                    "trial": {
                        "concept": course.concept.id,
                        "arm": name,
                        "seed": number,
                        "horizons": note["horizons"],
                        "hits": note["hits"],
                        "probes": len(course.requests),
                        "losses": note["losses"],
                        "similarity": note["similarity"],
                        "problem": note["problem"],
                        "full": self.full(course.concept, len(course.requests), course.prepared.scorer),
                    },
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unmeasured(f"trial {number} of {course.concept.id!r} cannot be read: {one_line(error)}") from error

    @cache  # noqa: B019 - the school lives as long as one evaluation
    def full(self, concept: Concept, count: int, scorer: str) -> float:
        """Rate at which the base model draws the concept when it is asked plainly, by as many images as a horizon."""
        try:
            images = self.materials.drawn(self.materials.plainly(concept, count))
        except PublisherError as error:
            raise Unmeasured(one_line(error)) from error
        seen = labelled(self.tools.scorers[scorer], scorer, images, concept)
        return sum(shows for shows, _ in seen) / len(seen)


@dataclass(frozen=True, eq=False)
class _Material:
    """Images for a trial."""

    images: torch.Tensor
    held_out: torch.Tensor
    prior: torch.Tensor


def _task(job: Job, material: Mapping[Course, _Material | None], school: _School) -> TrialTask:
    course = job.course
    found = material[course]
    if found is None:
        raise ValueError("a trial without images")
    return TrialTask(
        course.arms[job.name].folder,
        school.setting.device,
        course.attack,
        course.params,
        course.concept,
        course.captions,
        course.requests,
        found.images,
        found.held_out,
        found.prior,
        tuple(request.prompt for request in course.prior),
        seed_of("trial", school.sampling.seed, course.attack.name, course.concept.id, job.number),
        course.frozen(job.name, job.number),
    )


def _is_trained(task: TrialTasks, found: list[Trained]) -> bool:
    return isinstance(found, list) and len(found) == len(task.trials) and all(isinstance(one, Trained) for one in found)


def _words(job: Job) -> str:
    return f"{job.course.attack.name} on {job.course.concept.id}"
