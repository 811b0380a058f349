"""The hooks. A plugin is a module (or object) behind an entry point of the group ``publisher``."""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from publisher.api.attacks import Attack
from publisher.api.events import CheckEnd, PackageBuilt, ReleaseEnd, ReleaseStart, StepEnd, StepStart
from publisher.api.families import ModelFamily
from publisher.api.metrics import Metric
from publisher.api.scorers import Scorer
from publisher.api.steps import Step
from publisher.api.world import Executor, ModelSource, ReportFormat

PROJECT = "publisher"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def publisher_register_steps() -> Sequence[type[Step]]:  # type: ignore[empty-body, type-arg]
    """Return hardening actions that a manifest can name.

    Asked once per process, without torch. Returns classes, not instances. If it raises, this plugin is set aside and
    ``publisher plugins`` says why. Since 0.1.
    """


@hookspec
def publisher_register_attacks() -> Sequence[type[Attack]]:  # type: ignore[empty-body, type-arg]
    """Return ways to get a concept out of a model, which checks can name.

    Asked once per process, without torch. Returns classes. If it raises, this plugin is set aside. Since 0.1.
    """


@hookspec
def publisher_register_scorers() -> Sequence[type[Scorer]]:  # type: ignore[empty-body, type-arg]
    """Return judges of images, which ``evaluate.scorers`` and checks can name.

    Asked once per process, without torch. Returns classes. If it raises, this plugin is set aside. Since 0.1.
    """


@hookspec
def publisher_register_metrics() -> Sequence[type[Metric]]:  # type: ignore[empty-body, type-arg]
    """Return numbers with intervals, which checks can name.

    Asked once per process, without torch. Returns classes. If it raises, this plugin is set aside. Since 0.1.
    """


@hookspec
def publisher_register_families() -> Sequence[type[ModelFamily]]:  # type: ignore[empty-body]
    """Return kinds of models that steps can work on.

    Asked once per process, without torch. Returns classes. Exactly one registered family must recognise a model.
    If it raises, this plugin is set aside. Since 0.1.
    """


@hookspec
def publisher_register_sources() -> Sequence[type[ModelSource]]:  # type: ignore[empty-body]
    """Return places that ``model:`` can name.

    Asked once per process, without torch. Returns classes. If it raises, this plugin is set aside. Since 0.1.
    """


@hookspec
def publisher_register_executors() -> Sequence[type[Executor]]:  # type: ignore[empty-body, type-arg]
    """Return places where the evaluation can run, which ``evaluate.executor`` can name.

    Asked once per process, without torch. Returns classes. If it raises, this plugin is set aside. Since 0.1.
    """


@hookspec
def publisher_register_report_formats() -> Sequence[type[ReportFormat]]:  # type: ignore[empty-body]
    """Return forms of the release report, which ``publisher report --format`` can name.

    Asked once per process, without torch. Returns classes. If it raises, this plugin is set aside. Since 0.1.
    """


@hookspec
def publisher_on_release_start(event: ReleaseStart) -> None:
    """Hear, once, of the plan, before anything runs. An exception is reported and changes nothing."""


@hookspec
def publisher_on_step_start(event: StepStart) -> None:
    """Hear of a step before it runs; not of one that comes from the cache. An exception changes nothing."""


@hookspec
def publisher_on_step_end(event: StepEnd) -> None:
    """Hear that a step has its result, computed or cached. An exception changes nothing."""


@hookspec
def publisher_on_check_end(event: CheckEnd) -> None:
    """Hear that a check has its verdict. An exception changes nothing: no hook decides whether a gate passes."""


@hookspec
def publisher_on_package_built(event: PackageBuilt) -> None:
    """Hear that the unsigned package is complete, before the checks. An exception changes nothing."""


@hookspec
def publisher_on_release_end(event: ReleaseEnd) -> None:
    """Hear, once, of the decision, whatever it is. An exception changes nothing."""
