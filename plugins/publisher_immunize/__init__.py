"""The step ``immunize``: MIMA and IMMA, weights from which adaptation brings a concept back late."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Step, hookimpl


@hookimpl
def publisher_register_steps() -> Sequence[type[Step]]:  # type: ignore[type-arg]
    """Register ``immunize``."""
    from publisher_immunize.step import Immunize

    return (Immunize,)
