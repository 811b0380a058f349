"""Where a check stands in a manifest: the line that a reviewer has to look at."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from publisher.errors import UsageError
from publisher.manifest.places import Mark
from publisher.manifest.places import Path as Keys
from publisher.manifest.reader import Reading


class Sites:
    """A manifest, or another file of this format, as a log or a review names places in it.

    Args:
        path: of the file, as the user gave it.
        raw: its bytes; None: other ones than were used, so that no line of it is known.
    """

    def __init__(self, path: Path, raw: bytes | None) -> None:
        self.file = relative(path)
        self._reading = Reading(raw) if raw is not None else None

    def check(self, name: str, steps: Sequence[str]) -> Mark | None:
        """Return the place of a check: its gate, else its own entry, else the step that makes its claim.

        Args:
            name: id of the check.
            steps: ids of the steps that make its claim.

        Returns:
            None: nothing of it is in the file.
        """
        if self._reading is None:
            return None
        places = self._reading.places
        for gate in (name, *(f"{step}.{name}" for step in steps)):
            if ("evaluate", "gates", gate) in places.keys:
                return places.keys["evaluate", "gates", gate]
        for path, entry in self._entries(("evaluate", "checks")):
            if entry.get("id") == name:
                return places.value(path)
        for path, entry in self._entries(("steps",)):
            if entry.get("id", entry.get("use")) in steps:
                return places.value(path)
        return None

    def _entries(self, keys: Keys) -> list[tuple[Keys, dict[str, Any]]]:
        """Return the mappings of a list with their paths."""
        data = self._reading.data if self._reading else None
        for key in keys:
            data = data.get(key) if isinstance(data, dict) else None
        entries = data if isinstance(data, list) else []
        return [((*keys, number), entry) for number, entry in enumerate(entries) if isinstance(entry, dict)]


def relative(path: Path) -> str:
    """Return a path as seen from the current folder, with forward slashes: what CI systems compare with a repository.

    Raises:
        UsageError: it lies elsewhere, or is not one that text can hold.
    """
    found = os.path.relpath(path)
    if found.startswith("..") or os.path.isabs(found):  # noqa: PTH117  # another drive's stays absolute
        raise UsageError(
            "lies outside of the current folder, so that no relative path can name it",
            where=str(path),
            hint="Run the command in the root of the repository: CI systems find files by their path in it.",
        )
    return Path(found).as_posix()
