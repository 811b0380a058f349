"""Concept erasure for diffusers models, in closed form (UCE, RECE) or by a training: the step ``erase``.

Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Step, hookimpl


@hookimpl
def publisher_register_steps() -> Sequence[type[Step]]:  # type: ignore[type-arg]
    """Register ``erase``."""
    from publisher_erase.step import Erase

    return (Erase,)
