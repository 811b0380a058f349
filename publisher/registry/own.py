"""What the publisher's own distribution brings: code that a reader runs to judge a package, and no other code."""

from __future__ import annotations

from functools import cache
from importlib.metadata import distributions
from typing import Any

from publisher.api import Attack, Metric
from publisher.errors import PrerequisiteError
from publisher.registry.load import build_registry, installed
from publisher.registry.origin import DISTRIBUTION, named

PACKAGE = "publisher"
"""The import package whose plugins count: the others of the distribution are plugins like anybody else's."""


@cache
def own_metrics() -> dict[str, type[Metric[Any]]]:
    """Return the publisher's own metrics by name. Other distributions are neither imported nor asked.

    Raises:
        PrerequisiteError: there are none, so that no number could be made again.
    """
    return _own("metric")


@cache
def own_attacks() -> dict[str, type[Attack[Any]]]:
    """Return the publisher's own attacks by name, as :func:`own_metrics` does.

    Raises:
        PrerequisiteError: there are none.
    """
    return _own("attack")


def _own(kind: str) -> dict[str, Any]:
    points, _ = installed(one for one in distributions() if named(one)[0] == DISTRIBUTION)
    registry = build_registry(point for point in points if point.module.partition(".")[0] == PACKAGE)
    found = {entry.name: entry.cls for entry in registry.all(kind)}
    if not found:
        reasons = "; ".join(str(one.reason) for one in registry.broken) or "its entry points are not installed"
        raise PrerequisiteError(
            f"the publisher's own {kind}s are missing: {reasons}",
            hint=f"Install the distribution again: pip install --force-reinstall {DISTRIBUTION}",
        )
    return found
