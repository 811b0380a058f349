"""Data that can be withdrawn: the step ``slices`` composes what may stay; an attack and a metric test that.

Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Attack, Metric, Step, hookimpl


@hookimpl
def publisher_register_steps() -> Sequence[type[Step]]:  # type: ignore[type-arg]
    """Register ``slices``."""
    from publisher_slices.step import ComposeSlices

    return (ComposeSlices,)


@hookimpl
def publisher_register_attacks() -> Sequence[type[Attack]]:  # type: ignore[type-arg]
    """Register ``take-out-slices``."""
    from publisher_slices.attack import TakeOutSlices

    return (TakeOutSlices,)


@hookimpl
def publisher_register_metrics() -> Sequence[type[Metric]]:  # type: ignore[type-arg]
    """Register ``head-start``."""
    from publisher_slices.metrics import HeadStart

    return (HeadStart,)
