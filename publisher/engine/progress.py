"""Progress as data; who shows it is the command line's business."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Listener that is told how far a release has come."""

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Stage ``stage`` has done ``done`` of ``total``."""

    def say(self, text: str) -> None:
        """Print a line worth keeping on the terminal."""

    def warn(self, text: str) -> None:
        """Print a line the user should act on."""
