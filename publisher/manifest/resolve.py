"""From a well-formed manifest to everything written out: what a release works on, and what the package records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path as FilePath
from typing import Any, Literal

from pydantic import Field

from publisher.api import Check, Gate, Params, Sampling, Scope
from publisher.errors import ManifestError
from publisher.manifest.catalog import Catalog
from publisher.manifest.concepts import resolve_scope
from publisher.manifest.defaults import fill_in, keep_the_rest
from publisher.manifest.loader import Document, load
from publisher.manifest.places import Problems
from publisher.manifest.plugins import add_plugin_problems
from publisher.manifest.prompt_lists import with_prompts
from publisher.manifest.references import check_checks, check_steps
from publisher.manifest.schema import Manifest, Release, Sign
from publisher.manifest.scorers import ResolvedScorer, labels_of, labels_of_all, resolve_scorers

RED_TEAM = "red-team"
"""Claim of the red team's suite; its checks are called ``red-team.ATTACK``."""
FOUND = "found-excess"
"""Metric of these checks."""


class ResolvedStep(Params):
    """A step with its parameters' defaults written out."""

    id: str
    """Unique in the release."""
    use: str
    """Name of the step."""
    concepts: tuple[str, ...]
    """Ids of the concepts to go that it is about."""
    params: dict[str, Any]
    """``catalog.params("step", use).parse(params)`` gives the step's parameters."""
    given: dict[str, Any] = Field(default_factory=dict)
    """Parameters that the manifest itself gives; the step may decide the others by the model."""


class ResolvedExecutor(Params):
    """Where the tests run, with the parameters' defaults written out."""

    use: str
    """Registered name of the executor."""
    params: dict[str, Any]
    """``catalog.params("executor", use).parse(params)`` gives the executor's parameters."""


def _no_check(checks: tuple[Check, ...]) -> bool:
    return not checks


def _sealed(finds: str) -> bool:
    return finds == "seal"


class ResolvedEvaluate(Params):
    """How the claims are tested."""

    scorers: tuple[ResolvedScorer, ...]
    """Scorers of checks that name none, each for its kinds; empty without one."""
    executor: ResolvedExecutor
    sampling: Sampling
    after_each_step: bool
    trainings_after_each_step: bool
    gates: dict[str, Gate]
    """Check's id -> gate; the ids of the steps' own checks are known to the plan only."""
    checks: tuple[Check, ...]
    """Further checks, their parameters' defaults written out."""
    red_team: tuple[Check, ...] = Field(default=(), exclude_if=_no_check)
    """Checks of the red team's suite, written out; none: it is off."""
    retrained: str
    """A model that never knew the concepts, as written; empty without one."""
    images: bool
    finds: Literal["seal", "publish"] = Field(default="seal", exclude_if=_sealed)
    """What a package says of what brought a concept back; not there: it is sealed."""


class Resolved(Params):
    """A manifest with every short form, default and template written out. Holds no secret and no path of a machine."""

    manifest: Literal[1] = 1
    manifest_sha256: str
    """sha256 of the manifest's bytes as they were written."""
    release: Release
    model: str
    """The reference as written."""
    base_safeguards: Literal["refuse", "drop"] = "refuse"
    seed: int
    device: str
    dtype: str
    scope: Scope
    steps: tuple[ResolvedStep, ...]
    evaluate: ResolvedEvaluate
    sign: Sign | None
    hazards: dict[str, str] = Field(default_factory=dict)
    """Concept's id -> hazard that it belongs to, where the manifest names one."""

    def scope_of(self, step: ResolvedStep) -> Scope:
        """Return what a step is told: its own concepts to go, and all that is to stay."""
        concepts = tuple(concept for concept in self.scope.concepts if concept.id in step.concepts)
        others = tuple(concept for concept in self.scope.concepts if concept.id not in step.concepts)
        return self.scope.model_copy(update={"concepts": concepts, "others": others})


def read(path: FilePath, catalog: Catalog) -> Resolved:
    """Load and resolve a manifest.

    Raises:
        ManifestError: with every problem found.
        UsageError: the file cannot be read.
    """
    return resolve(load(path, partial(add_plugin_problems, catalog=catalog)), catalog)


def resolve(document: Document, catalog: Catalog) -> Resolved:
    """Write everything out.

    Raises:
        ManifestError: with every name that is not known and everything that does not fit together.
    """
    problems = Problems(document.places)
    add_plugin_problems(document.data, problems, catalog)
    manifest = document.manifest
    if not len(problems):
        manifest = fill_in(manifest, catalog.model_defaults(manifest.model))
    scorers = None if len(problems) else resolve_scorers(manifest.evaluate, catalog, problems)
    scope = None
    if scorers is not None:
        manifest = keep_the_rest(manifest, scorers, catalog)
        scope = _scope(manifest, document.path.parent, scorers, catalog, problems)
    check_steps(manifest, problems)
    manifest = _with_prompts(manifest, document.path.parent, problems)
    if scope and scorers is not None:
        check_checks(manifest, scope, scorers, catalog, problems)
    if scope is None or scorers is None or len(problems):
        raise ManifestError(str(document.path), list(problems))
    return Resolved(
        manifest_sha256=document.sha256,
        release=manifest.release,
        model=manifest.model,
        base_safeguards=manifest.base_safeguards,
        seed=manifest.seed,
        device=manifest.device,
        dtype=manifest.dtype,
        scope=scope,
        steps=tuple(_steps(manifest, scope, catalog)),
        evaluate=_evaluate(manifest, scope, scorers, catalog),
        sign=manifest.sign,
        hazards={entry.id: entry.hazard for entry in manifest.concepts if entry.hazard},
    )


def _with_prompts(manifest: Manifest, folder: FilePath, problems: Problems) -> Manifest:
    """Return a manifest whose checks have the prompts of their files."""
    checks = tuple(
        with_prompts(check, folder, ("evaluate", "checks", position), problems)
        for position, check in enumerate(manifest.evaluate.checks)
    )
    return manifest.model_copy(update={"evaluate": manifest.evaluate.model_copy(update={"checks": checks})})


def _scope(
    manifest: Manifest,
    folder: FilePath,
    scorers: Mapping[str, ResolvedScorer],
    catalog: Catalog,
    problems: Problems,
) -> Scope | None:
    """Return the concepts; None after complaints."""
    rest_of = manifest.keep.rest_of
    rest = labels_of(rest_of, scorers, catalog) if rest_of else {}
    return resolve_scope(manifest, labels_of_all(scorers, catalog), rest, folder, problems)


def _steps(manifest: Manifest, scope: Scope, catalog: Catalog) -> Iterator[ResolvedStep]:
    everything = tuple(concept.id for concept in scope.concepts)
    for step in manifest.steps:
        params = catalog.params("step", step.use).parse(step.with_)
        yield ResolvedStep(
            id=step.id or step.use,
            use=step.use,
            concepts=step.concepts or everything,
            params=params.as_json(),
            given=params.model_dump(mode="json", exclude_unset=True),
        )


def _evaluate(
    manifest: Manifest, scope: Scope, scorers: Mapping[str, ResolvedScorer], catalog: Catalog
) -> ResolvedEvaluate:
    evaluate = manifest.evaluate
    executor = evaluate.executor
    where = catalog.params("executor", executor.use).parse(executor.with_).as_json()
    return ResolvedEvaluate(
        scorers=tuple(scorers.values()),
        executor=ResolvedExecutor(use=executor.use, params=where),
        sampling=evaluate.sampling,
        after_each_step=evaluate.after_each_step,
        trainings_after_each_step=evaluate.trainings_after_each_step,
        gates=evaluate.gates,
        checks=tuple(_written_out(check, catalog) for check in evaluate.checks),
        red_team=tuple(_written_out(check, catalog) for check in _red_team(manifest, scope, catalog)),
        retrained=evaluate.retrained or "",
        images=evaluate.images,
        finds=evaluate.finds,
    )


def _red_team(manifest: Manifest, scope: Scope, catalog: Catalog) -> Iterator[Check]:
    """Yield a check for each attack of the suite that no check of the manifest stands in for."""
    budget, own = manifest.evaluate.red_team, {check.id for check in manifest.evaluate.checks}
    if budget == "off":
        return
    everything = tuple(concept.id for concept in scope.concepts)
    for attack in catalog.searches(budget):
        name = f"{RED_TEAM}.{attack}"
        if name not in own:
            params = {"budget": budget}
            yield Check(id=name, attack=attack, attack_params=params, metric=FOUND, concepts=everything)


def _written_out(check: Check, catalog: Catalog) -> Check:
    """Return a check with the defaults of its parameters."""
    attack = catalog.params("attack", check.attack).parse(check.attack_params).as_json()
    metric = catalog.params("metric", check.metric).parse(check.metric_params).as_json()
    return check.model_copy(update={"attack_params": attack, "metric_params": metric})
