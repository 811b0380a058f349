"""How the user started this program, for hints that work when they are pasted."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

NAME = "publisher"


def program() -> str:
    """Return the words that start this program, the way the user did it.

    ``publisher`` where that is what the shell would find; a path; or ``python -m publisher`` with the interpreter that
    was named. Where the package is used by another program it is ``publisher``.
    """
    started = Path(sys.argv[0]) if sys.argv else Path()
    if started.name == "__main__.py" and started.parent.name == NAME:
        return shlex.join(sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1])
    if started.name != NAME or _same(shutil.which(NAME), started):
        return NAME
    return shlex.quote(str(started))


def command(words: str) -> str:
    """Return a command of this program for a hint: ``command("plugins")`` may be ``"python -m publisher plugins"``."""
    return f"{program()} {words}"


def _same(found: str | None, started: Path) -> bool:
    try:
        return found is not None and started.samefile(found)
    except OSError:
        return False
