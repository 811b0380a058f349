"""Release tool for publishers of text-to-image models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from publisher.guarding import guard
    from publisher.loading import load
    from publisher.package.anchors import trust

__all__ = ["guard", "load", "trust"]
__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> Any:
    """Return ``publisher.load``, ``guard`` and ``trust``, imported when they are first asked for."""
    if name == "load":
        from publisher.loading import load

        return load
    if name == "guard":
        from publisher.guarding import guard

        return guard
    if name == "trust":
        from publisher.package.anchors import trust

        return trust
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
