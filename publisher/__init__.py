"""Release tool for publishers of text-to-image models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from publisher.loading import load

__all__ = ["load"]
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """``publisher.load``, imported when it is first asked for."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from publisher.loading import load

    return load
