"""Attacks by training: every trial on every model, generated and judged, each kept so that an interrupted run goes on.

The attacker has the weights: safeguards that come with a package are not attached, whatever the check says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from publisher.api import Concept, Judgement, Sampling, Scope
from publisher.api.evidence import TrialRow
from publisher.api.training import UNSEEN
from publisher.errors import CRASHES, PublisherError
from publisher.evaluate.context import ModelsUnderTest, ReleaseScorer, Setting, Tools, Unmeasured
from publisher.evaluate.dispatch import dispatch
from publisher.evaluate.evidence import pixels_sha256
from publisher.evaluate.finetune.data import HELD_OUT, AttackerImages, swapped
from publisher.evaluate.finetune.plans import TrialJob, TrialPlan, TrialPlanner, frozen_digest
from publisher.evaluate.finetune.trials import Trained, TrialTask, TrialTasks, original, perform
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.requests import one_line
from publisher.evaluate.scorers import agreed, features, in_word, judgements, loaded
from publisher.model.digest import seed_of
from publisher.runtime.meter import Meter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Relearned:
    """All trials of a check."""

    rows: tuple[TrialRow, ...]
    """Trials of the hardened model first, then of the controls in their order; by concept, by number."""
    seconds: float
    """Seconds of one training step on the hardened model, here; of each where trials ran side by side."""


def relearn(
    checks: Sequence[PreparedCheck],
    scope: Scope,
    models: ModelsUnderTest,
    tools: Tools,
    sampling: Sampling,
    setting: Setting,
) -> dict[str, Relearned | Unmeasured]:
    """Make all trials of these checks.

    Args:
        checks: of attacks by training.
        scope: the concepts.
        models: the hardened model and all controls.
        tools: the scorers and the executor.
        sampling: how images are generated.
        setting: store, device, progress. Trials run in float32 whatever it says.

    Returns:
        Check's id -> its trials, or why there are none. A trial that lost its numbers is among them, with its problem.

    Raises:
        PublisherError: the disk is full.
    """
    return _TrialRunner(scope, models, tools, sampling, replace(setting, dtype="float32")).run(checks)


@dataclass(eq=False)
class _TrialRunner:
    scope: Scope
    models: ModelsUnderTest
    tools: Tools
    sampling: Sampling
    setting: Setting
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Key -> what was found."""
    problems: dict[str, str] = field(default_factory=dict)
    """Key -> why nothing was."""
    trained_on: dict[TrialPlan, torch.Tensor | None] = field(default_factory=dict)
    """Features of the images that are trained on; None: the scorer has none."""

    def run(self, checks: Sequence[PreparedCheck]) -> dict[str, Relearned | Unmeasured]:
        """Run all trials of all checks, each once."""
        plans: dict[str, list[TrialPlan] | Unmeasured] = {}
        for check in checks:
            try:
                plans[check.check.id] = [self.planner.plan(check, concept) for concept in check.concepts]
            except Unmeasured as error:
                plans[check.check.id] = error
        self._make([plan for found in plans.values() if isinstance(found, list) for plan in found])
        return {
            name: found if isinstance(found, Unmeasured) else self._relearned(found) for name, found in plans.items()
        }

    @cached_property
    def planner(self) -> TrialPlanner:
        """The planner of the trials."""
        return TrialPlanner(self.scope, self.models, self.tools, self.sampling, self.setting)

    @property
    def attacker_images(self) -> AttackerImages:
        """Images of the base model."""
        return self.planner.attacker_images

    def _make(self, plans: Sequence[TrialPlan]) -> None:
        """Run the trials that are not in the store, as many at a time as run side by side."""
        jobs = list(self._missing(plans))
        material = {plan: self._material(plan) for plan in dict.fromkeys(job.plan for job in jobs)}
        jobs = [job for job in jobs if material[job.plan]]
        if not jobs:
            return
        workers = self.planner.workers
        chunks = [jobs[start : start + workers] for start in range(0, len(jobs), workers)]
        tasks = [TrialTasks(tuple(_task(job, material, self) for job in chunk), workers) for chunk in chunks]
        waiting = iter(chunks)
        with Meter(self.setting.progress, sum(job.plan.cost for job in jobs), _words(jobs[0])) as meter:
            try:
                for found in dispatch(self.tools.executor, perform, tasks, _is_trained):
                    chunk = next(waiting)
                    for job, trained in zip(chunk, found, strict=True):
                        self._keep(job, trained)
                    meter.text = _words(chunk[-1])
                    meter.settle(sum(job.plan.cost for job in chunk))
            except Unmeasured as error:
                self.problems |= {job.key: str(error) for chunk in waiting for job in chunk}
            finally:
                original.cache_clear()

    def _missing(self, plans: Sequence[TrialPlan]) -> Iterator[TrialJob]:
        seen = set()
        for plan in plans:
            for name in plan.models:
                for number in range(plan.params.seeds):
                    key = plan.job(name, number)
                    stored = None if key in seen else self.setting.store.note(key)
                    if stored is not None:
                        self.notes[key] = stored
                    elif key not in seen:
                        yield TrialJob(key, plan, name, number)
                    seen.add(key)

    def _material(self, plan: TrialPlan) -> _TrialImages | None:
        try:
            images = self.attacker_images.attackers(plan.shown, plan.images)
            prior = self.attacker_images.generated(plan.prior) if plan.prior else images[:0]
        except (Unmeasured, PublisherError) as error:
            for name in plan.models:
                self.problems |= dict.fromkeys(
                    (plan.job(name, number) for number in range(plan.params.seeds)), str(error)
                )
            return None
        return _TrialImages(images[HELD_OUT:], images[:HELD_OUT], prior)

    def _keep(self, job: TrialJob, trained: Trained) -> None:
        members, said = self.tools.members(job.plan.scorer), []
        if job.name == UNSEEN:
            trained = replace(trained, images=[swapped(images) for images in trained.images])
        similarity: list[float] | None = []
        try:
            if trained.crash:
                raise Unmeasured(trained.crash)  # noqa: TRY301 - one place that says why
            for scorer in members:
                with loaded(scorer, self.setting):
                    said.append([judgements(scorer, images, job.plan.concept) for images in trained.images])
                    if scorer is members[0]:
                        similarity = self._similarity(job.plan, trained.images, scorer)
        except Unmeasured as error:
            self.problems[job.key] = str(error)
            return
        together = [[agreed(each) for each in zip(*some, strict=True)] for some in zip(*said, strict=True)]
        self.notes[job.key] = {**self._note(job.plan, trained, together), "similarity": similarity or []}
        if similarity is not None:
            self.setting.store.put_note(job.key, self.notes[job.key])

    def _note(self, plan: TrialPlan, trained: Trained, said: Sequence[Sequence[Judgement]]) -> dict[str, Any]:
        """Return what is kept of a trial, as JSON; of its images only what was seen of them."""
        seen = [[in_word(judgement, plan.concept) for judgement in images] for images in said]
        unsure = sum(shows is None for images in seen for shows, _ in images)
        return {
            "evaluation_steps": list(plan.params.evaluation_steps[: len(trained.images)]),
            "hits": [sum(bool(shows) for shows, _ in images) for images in seen],
            "labels": [[label for _, label in images] for images in seen],
            "sha256": [[pixels_sha256(image) for image in images] for images in trained.images],
            "losses": trained.losses,
            "problem": trained.problem
            or (f"the scorer {plan.scorer!r} could not judge {unsure} images" if unsure else ""),
            "seconds": trained.seconds / trained.steps if trained.steps else 0.0,
        }

    def _similarity(self, plan: TrialPlan, images: Sequence[torch.Tensor], scorer: ReleaseScorer) -> list[float] | None:
        """Return the mean cosine of each generated image with each image trained on; empty: there are no features.

        None: they crashed. Metrics that read them become unknown, and the trial is not kept.
        """
        try:
            return self._similarities(plan, images, scorer)
        except CRASHES as error:  # a plugin may raise anything
            self.setting.warn(f"the scorer {scorer.id!r} gave no features: {one_line(error)}")
            return None

    def _similarities(self, plan: TrialPlan, images: Sequence[torch.Tensor], scorer: ReleaseScorer) -> list[float]:
        if plan not in self.trained_on:
            self.trained_on[plan] = features(scorer, self.attacker_images.attackers(plan.shown, plan.images)[HELD_OUT:])
        reference = self.trained_on[plan]
        if reference is None:
            return []
        found = [features(scorer, generated) for generated in images]
        return [round(float((one @ reference.T).mean()), 6) for one in found if one is not None]

    def _relearned(self, plans: Sequence[TrialPlan]) -> Relearned | Unmeasured:
        try:
            rows = [
                self._row(plan, name, number)
                for name in plans[0].models
                for plan in plans
                for number in range(plan.params.seeds)
            ]
        except Unmeasured as error:
            return error
        seconds = [
            self.notes[plan.job("hardened", number)].get("seconds", 0.0)
            for plan in plans
            for number in range(plan.params.seeds)
        ]
        return Relearned(tuple(rows), sum(seconds) / len(seconds))

    def _row(self, plan: TrialPlan, name: str, number: int) -> TrialRow:
        key = plan.job(name, number)
        if key not in self.notes:
            reason = self.problems.get(key, "it is missing")
            raise Unmeasured(f"trial {number} of {plan.concept.id!r} on the model {name!r} failed: {reason}")
        note = self.notes[key]
        try:
            return TrialRow.parse(
                {
                    "check": plan.prepared.check.id,
                    "model": plan.models[name].digest,
                    "frozen": frozen_digest(plan.frozen(name, number)),
                    "captions": plan.captions,
                    "prompts": [request.prompt for request in plan.requests],
                    "seeds": [request.seed for request in plan.requests],
                    "labels": note["labels"],
                    "sha256": note["sha256"],
                    "trial": {
                        "concept": plan.concept.id,
                        "model": name,
                        "seed": number,
                        "evaluation_steps": note["evaluation_steps"],
                        "hits": note["hits"],
                        "images_per_evaluation": len(plan.requests),
                        "losses": note["losses"],
                        "similarity": note["similarity"],
                        "problem": note["problem"],
                        "full": self.full(plan.concept, len(plan.requests), plan.scorer),
                    },
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Unmeasured(f"trial {number} of {plan.concept.id!r} cannot be read: {one_line(error)}") from error

    @cache  # noqa: B019 - the runner lives as long as one evaluation
    def full(self, concept: Concept, count: int, scorer: str) -> float:
        """Return the base model's rate of the concept when asked plainly, by as many images as an evaluation."""
        try:
            images = self.attacker_images.generated(self.attacker_images.plainly(concept, count))
        except PublisherError as error:
            raise Unmeasured(one_line(error)) from error
        said = []
        for member in self.tools.members(scorer):
            with loaded(member, self.setting):
                said.append(judgements(member, images, concept))
        seen = [in_word(agreed(each), concept) for each in zip(*said, strict=True)]
        if any(shows is None for shows, _ in seen):
            raise Unmeasured(f"the scorer {scorer!r} could not judge all images of the base model")
        return sum(bool(shows) for shows, _ in seen) / len(seen)


@dataclass(frozen=True, eq=False)
class _TrialImages:
    """Images for a trial."""

    images: torch.Tensor
    held_out: torch.Tensor
    prior: torch.Tensor


def _task(job: TrialJob, material: Mapping[TrialPlan, _TrialImages | None], runner: _TrialRunner) -> TrialTask:
    plan = job.plan
    found = material[plan]
    if found is None:
        raise ValueError("a trial without images")
    images, held_out = found.images, found.held_out
    if job.name == UNSEEN:
        images, held_out = swapped(images), swapped(held_out)
    return TrialTask(
        plan.models[job.name].folder,
        plan.models[job.name].anatomy,
        runner.setting.device,
        plan.attack,
        plan.params,
        plan.concept,
        plan.captions,
        plan.requests,
        images,
        held_out,
        found.prior,
        tuple(request.prompt for request in plan.prior),
        seed_of("trial", runner.sampling.seed, plan.attack.name, plan.concept.id, job.number),
        plan.frozen(job.name, job.number),
        runner.models.base.folder if plan.attack.learns_on_base else None,
    )


def _is_trained(task: TrialTasks, found: list[Trained]) -> bool:
    return isinstance(found, list) and len(found) == len(task.trials) and all(isinstance(one, Trained) for one in found)


def _words(job: TrialJob) -> str:
    return f"{job.plan.attack.name} on {job.plan.concept.id}"
