"""The step ``freeze-mask``: which tensors a fine-tuning is to leave as they are, learned from what fine-tuning does."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Step, hookimpl


@hookimpl
def publisher_register_steps() -> Sequence[type[Step]]:  # type: ignore[type-arg]
    """Register ``freeze-mask``."""
    from publisher_freeze_mask.step import FreezeMaskStep

    return (FreezeMaskStep,)
