"""The publisher's own plugins, registered like anybody else's. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from publisher.api import Attack, Executor, Metric, ModelFamily, ModelSource, ReportFormat, hookimpl


@hookimpl
def publisher_register_attacks() -> Sequence[type[Attack]]:  # type: ignore[type-arg]
    """Return those that ask, those that put weights back, those that train."""
    from publisher.builtin.attacks import ATTACKS

    return ATTACKS


@hookimpl
def publisher_register_metrics() -> Sequence[type[Metric]]:  # type: ignore[type-arg]
    """Return those that count images, and those that read the curves of attacks by training."""
    from publisher.builtin.metrics import METRICS

    return METRICS


@hookimpl
def publisher_register_families() -> Sequence[type[ModelFamily]]:
    """Return those of U-Nets, then those of transformers."""
    from publisher.builtin.families import FAMILIES
    from publisher.builtin.flux import Chroma, Flux1
    from publisher.builtin.lumina_2 import Lumina2
    from publisher.builtin.pixart import PixArt
    from publisher.builtin.qwen_image import QwenImage
    from publisher.builtin.sana import Sana
    from publisher.builtin.stable_diffusion_3 import StableDiffusion3
    from publisher.builtin.z_image import ZImage

    return (*FAMILIES, StableDiffusion3, Flux1, Chroma, QwenImage, ZImage, Lumina2, PixArt, Sana)


@hookimpl
def publisher_register_sources() -> Sequence[type[ModelSource]]:
    """Return ``folder`` and ``hf``."""
    from publisher.builtin.sources import SOURCES

    return SOURCES


@hookimpl
def publisher_register_executors() -> Sequence[type[Executor[Any]]]:
    """Return ``local``, ``processes`` and ``ray``."""
    from publisher.builtin.executors import EXECUTORS

    return EXECUTORS


@hookimpl
def publisher_register_report_formats() -> Sequence[type[ReportFormat]]:
    """Return the forms of the report."""
    from publisher.builtin.reports import FORMATS

    return FORMATS
