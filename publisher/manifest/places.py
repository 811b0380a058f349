"""Where in the file each value stands, and the list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from publisher.errors import Problem

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the manifest: ``("steps", 0, "use")``."""


@dataclass(frozen=True)
class Mark:
    """A place in the file, 1-based, and what is written there."""

    line: int
    column: int
    text: str = ""
    """The scalar as it was written; empty for lists and mappings."""


TOP = Mark(1, 1)
MAX_PROBLEMS = 100
"""Most problems that are shown: nobody reads more, and making the hints takes time."""


@dataclass
class Places:
    """Path -> place, of values and of keys."""

    values: dict[Path, Mark] = field(default_factory=dict)
    keys: dict[Path, Mark] = field(default_factory=dict)
    broken: set[Path] = field(default_factory=set)
    """Values that could not be read, which has been said: whatever else is wrong with them does not matter."""

    def known(self, path: Path) -> Path:
        """Return the longest path in the file that follows ``path``, without elements that are not in the file."""
        found: Path = ()
        for element in path:
            if (*found, element) in self.values:
                found = (*found, element)
        return found

    def value(self, path: Path) -> Mark:
        """Place of the value, or of the nearest thing around it that is in the file."""
        return self.values.get(self.known(path), TOP)

    def key(self, path: Path) -> Mark:
        """Place of the key that leads to the value; of the value itself in a list."""
        known = self.known(path)
        return self.keys.get(known) or self.values.get(known, TOP)


@dataclass
class Problems:
    """Collects problems, so that all can be shown at once."""

    places: Places
    found: dict[Problem, None] = field(default_factory=dict)

    def at_value(self, path: Path, message: str, hint: str = "") -> None:
        """Add a problem with a value."""
        if not self._in_broken(path):
            self.at(self.places.value(path), message, hint)

    def at_key(self, path: Path, message: str, hint: str = "") -> None:
        """Add a problem with a key, or with the section that it opens."""
        if not self._in_broken(path):
            self.at(self.places.key(path), message, hint)

    def _in_broken(self, path: Path) -> bool:
        return any(path[:end] in self.places.broken for end in range(len(path) + 1))

    def at(self, mark: Mark, message: str, hint: str = "") -> None:
        """Add a problem at a place."""
        if not self.full:
            self.found[Problem(mark.line, mark.column, message, hint)] = None

    @property
    def full(self) -> bool:
        """No more problems are taken."""
        return len(self.found) >= MAX_PROBLEMS

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)
