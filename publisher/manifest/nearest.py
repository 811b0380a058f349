"""``Did you mean ...?``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 64
_SHOWN = 20


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like ``name``, if any is."""
    found = difflib.get_close_matches(name[:_LONGEST], list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(name: str, known: Iterable[str], title: str) -> str:
    """Return a hint such as ``"Did you mean 'erase'?  Installed steps: erase, immunize."``."""
    names = list(known)
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    close = nearest(name, names)
    question = f"Did you mean '{close}'?  " if close else ""
    return f"{question}{title}: {shown or 'none'}."
