"""The step ``membrane-bundle``: SPM membranes, trained, reused, merged, or served with the model."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Step, hookimpl


@hookimpl
def publisher_register_steps() -> Sequence[type[Step]]:  # type: ignore[type-arg]
    """Register ``membrane-bundle``."""
    from publisher_membrane_bundle.step import MembraneBundle

    return (MembraneBundle,)
