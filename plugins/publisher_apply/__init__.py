"""ForeignWeights that were made elsewhere, by any method, put onto the base model and tested here: the step ``apply``.

Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Step, hookimpl


@hookimpl
def publisher_register_steps() -> Sequence[type[Step]]:  # type: ignore[type-arg]
    """Register ``apply``."""
    from publisher_apply.step import Apply

    return (Apply,)
