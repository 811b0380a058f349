"""The command ``publisher``. One file a command; no logic here, and no torch before a command needs it."""

from __future__ import annotations

from publisher.cli.main import main

__all__ = ["main"]
