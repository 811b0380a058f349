"""YAML to plain data, with the place of every value. Refuses what a manifest has no use for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.events import AliasEvent, Event, MappingEndEvent, MappingStartEvent, NodeEvent, ScalarEvent, SequenceEndEvent

from publisher.manifest import scalars
from publisher.manifest.places import Mark, Path, Places, Problems

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 5_000
"""Scalars, lists and mappings together; PyYAML reads about this many in a quarter of a second."""

_NO_ANCHORS = "Anchors, aliases and merge keys are refused: write the value out."
_NO_TAGS = "Tags such as !!python/object are refused: a manifest holds text, numbers, true, false, lists and mappings."


class _Unreadable(Exception):  # noqa: N818 - a way out of a recursion, never seen outside
    """Nothing after this place can be read."""


class Reading:
    """A manifest's text, read, or that of another file by the same rules.

    Attributes:
        data: text, numbers, booleans, None, lists and dicts.
        places: where each of them stands.
        problems: what was refused.
        complete: whether the whole text was read.
        what: noun for messages: ``manifest`` or ``policy``, which is also the first key of the file.
    """

    def __init__(self, raw: bytes, what: str = "manifest") -> None:
        self.what = what
        self.data: Any = None
        self.places = Places()
        self.problems = Problems(self.places)
        self.complete = False
        self._values = 0
        try:
            self._document(_events(self._decode(raw)))
            self.complete = True
        except _Unreadable:
            pass
        except yaml.MarkedYAMLError as error:
            self._syntax(error)

    def _stop(self, mark: Mark, message: str, hint: str = "") -> _Unreadable:
        self.problems.at(mark, message, hint)
        return _Unreadable()

    def _decode(self, raw: bytes) -> str:
        if len(raw) > MAX_BYTES:
            raise self._stop(Mark(1, 1), f"the {self.what} is larger than {MAX_BYTES // 1024} KiB.")
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            mark = _position(raw[: error.start].decode("utf-8-sig"))
            raise self._stop(mark, f"byte 0x{raw[error.start]:02x} is not UTF-8.", "Save the file as UTF-8.") from None
        odd = yaml.reader.Reader.NON_PRINTABLE.search(text)
        if odd:
            mark = _position(text[: odd.start()])
            raise self._stop(mark, f"the file holds the character U+{ord(odd[0]):04X}, which YAML does not allow.")
        return text

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        place = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
        if "'\\t'" in (error.problem or ""):
            self.problems.at(place, "a tab cannot indent YAML.", "Indent with spaces.")
            return
        parts = [error.context, error.problem]
        self.problems.at(place, f"this is not YAML: {', '.join(part for part in parts if part)}.")

    def _document(self, events: Iterator[Event]) -> None:
        next(events)  # the stream
        if not isinstance(next(events), yaml.DocumentStartEvent):
            raise self._stop(Mark(1, 1), f"the {self.what} is empty.", f"Begin with: {self.what}: 1")
        self.data = self._node(next(events), events, ())
        next(events)  # the document's end
        following = next(events)
        if isinstance(following, yaml.DocumentStartEvent):
            raise self._stop(
                _mark(following), "a second document begins here.", f"One {self.what} is one YAML document."
            )

    def _node(self, event: Event, events: Iterator[Event], path: Path) -> Any:
        mark = self.places.values[path] = _mark(event)
        self._values += 1
        if self._values > MAX_VALUES:
            raise self._stop(mark, f"the {self.what} holds more than {MAX_VALUES} values.")
        if self.problems.full:
            raise _Unreadable
        refusal = _refusal(event)
        if refusal:
            self._broken(path, mark, *refusal)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, path, mark)
        if len(path) >= MAX_DEPTH:
            raise self._stop(mark, f"lists and mappings are nested deeper than {MAX_DEPTH} levels.")
        if isinstance(event, MappingStartEvent):
            return self._mapping(events, path)
        return None if isinstance(event, AliasEvent) else self._sequence(events, path)

    def _broken(self, path: Path, mark: Mark, message: str, hint: str = "") -> None:
        self.problems.at(mark, message, hint)
        self.places.broken.add(path)

    def _scalar(self, event: ScalarEvent, path: Path, mark: Mark) -> Any:
        reason = scalars.text_problem(event.value)
        if reason:
            self.places.values[path] = Mark(mark.line, mark.column)
            self._broken(path, mark, f"{reason}.")
            return None
        if event.style:
            return event.value
        try:
            return scalars.resolve(event.value)
        except ValueError as error:
            self._broken(path, mark, f"{error}.")
            return None

    def _sequence(self, events: Iterator[Event], path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            items.append(self._node(event, events, (*path, len(items))))
        return items

    def _mapping(self, events: Iterator[Event], path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            refusal = self._key_refusal(event, path, result)
            if refusal:
                self.problems.at(_mark(event), *refusal)
                if not isinstance(event, ScalarEvent):
                    self._skip(event, events, path)
                self._skip(next(events), events, path)
                continue
            assert isinstance(event, ScalarEvent)  # noqa: S101 - every other kind has been refused
            self.places.keys[*path, event.value] = _mark(event)
            result[event.value] = self._node(next(events), events, (*path, event.value))
        return result

    def _key_refusal(self, event: Event, path: Path, result: dict[str, Any]) -> tuple[str, str] | None:
        """Return what is wrong with a key, and what to do."""
        refusal = _refusal(event)
        if refusal or not isinstance(event, ScalarEvent):
            return refusal or ("a key must be text, not a list or a mapping.", "Did you leave a {...} unquoted?")
        reason = scalars.text_problem(event.value)
        if reason:
            return f"{reason}.", ""
        if event.value == "<<" and not event.style:
            return "'<<' is a merge key.", _NO_ANCHORS
        if not event.style and not _is_text(event.value):
            return f"a key must be text, and {event.value or 'an empty one'} is none.", "Put it in quotes."
        if event.value in result:
            first = self.places.keys[*path, event.value].line
            return f"the key '{event.value}' is here twice, first in line {first}.", "Keep one of them."
        return None

    def _skip(self, event: Event, events: Iterator[Event], path: Path) -> None:
        """Read one value and forget it, under a path that nothing else has."""
        self._node(event, events, (-1, *path))


def _refusal(event: Event) -> tuple[str, str] | None:
    """Return why a node that YAML allows cannot stand in a manifest, or None."""
    if isinstance(event, AliasEvent):
        return f"'*{event.anchor}' is an alias.", _NO_ANCHORS
    if isinstance(event, NodeEvent) and event.anchor:
        return f"'&{event.anchor}' is an anchor.", _NO_ANCHORS
    if getattr(event, "tag", None):
        return "this value has a tag.", _NO_TAGS
    return None


def _events(text: str) -> Iterator[Event]:
    return iter(yaml.parse(text, Loader=yaml.SafeLoader))


def _mark(event: Event) -> Mark:
    text = event.value if isinstance(event, ScalarEvent) else ""
    start = event.start_mark
    return Mark(start.line + 1, start.column + 1, text) if start else Mark(1, 1, text)


def _position(before: str) -> Mark:
    return Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _is_text(plain: str) -> bool:
    try:
        return isinstance(scalars.resolve(plain), str)
    except ValueError:
        return False
