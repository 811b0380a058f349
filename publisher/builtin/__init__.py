"""The publisher's own plugins, registered like anybody else's. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Attack, Executor, Metric, ModelFamily, ModelSource, ReportFormat, hookimpl


@hookimpl
def publisher_register_attacks() -> Sequence[type[Attack]]:  # type: ignore[type-arg]
    """``plain``, ``paraphrase``, ``empty-prompt``, ``guidance-sweep``."""
    from publisher.builtin.attacks import ATTACKS

    return ATTACKS


@hookimpl
def publisher_register_metrics() -> Sequence[type[Metric]]:  # type: ignore[type-arg]
    """``concept-rate``, ``kept-accuracy``, ``image-distance``."""
    from publisher.builtin.metrics import METRICS

    return METRICS


@hookimpl
def publisher_register_families() -> Sequence[type[ModelFamily]]:
    """``stable-diffusion-1``, ``stable-diffusion-2``, ``stable-diffusion-xl``."""
    from publisher.builtin.families import FAMILIES

    return FAMILIES


@hookimpl
def publisher_register_sources() -> Sequence[type[ModelSource]]:
    """``folder`` and ``hf``."""
    from publisher.builtin.sources import SOURCES

    return SOURCES


@hookimpl
def publisher_register_executors() -> Sequence[type[Executor]]:
    """``local``."""
    from publisher.builtin.executors import EXECUTORS

    return EXECUTORS


@hookimpl
def publisher_register_report_formats() -> Sequence[type[ReportFormat]]:
    """The forms of the report."""
    from publisher.builtin.reports import FORMATS

    return FORMATS
