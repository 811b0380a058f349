"""From a file to a :class:`Document`: YAML read, sections checked, names not yet looked up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import ValidationError

from publisher.api import Params
from publisher.errors import ManifestError, UsageError
from publisher.manifest.messages import add_errors
from publisher.manifest.places import Places, Problems
from publisher.manifest.reader import MAX_BYTES, Reading
from publisher.manifest.schema import Manifest

M = TypeVar("M", bound=Params)


@dataclass(frozen=True)
class Document:
    """A well-formed manifest with the places of everything in it."""

    path: FilePath
    """Path as the user gave it."""
    manifest: Manifest
    data: dict[str, Any]
    """The same, as it was written: without defaults."""
    places: Places
    sha256: str
    """sha256 of the file's bytes."""


def load(path: FilePath, also: Callable[[dict[str, Any], Problems], None] | None = None) -> Document:
    """Read a manifest and check its form.

    Args:
        path: the YAML file.
        also: a further check of the data; asked even when the form is wrong, so that all problems come at once.

    Raises:
        ManifestError: with every problem found.
        UsageError: the file cannot be read.
    """
    return parse(read_bytes(path), path, also)


def parse(raw: bytes, path: FilePath, also: Callable[[dict[str, Any], Problems], None] | None = None) -> Document:
    """Return the same from a manifest's bytes; ``path`` names them in errors, and what they name is relative to it.

    Raises:
        ManifestError: with every problem found.
    """
    reading = Reading(raw)
    manifest = validated(reading, Manifest) if reading.complete else None
    if also and isinstance(reading.data, dict):
        also(reading.data, reading.problems)
    if manifest is None or len(reading.problems):
        raise ManifestError(str(path), list(reading.problems))
    return Document(path, manifest, reading.data, reading.places, hashlib.sha256(raw).hexdigest())


def read_bytes(path: FilePath, what: str = "a manifest; a first one to copy is manifests/quickstart.yaml") -> bytes:
    """Return the bytes of a manifest or a policy, one more than it may have at most.

    Args:
        path: of the file.
        what: to give instead where there is none.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError("there is no such file.", where=str(path), hint=f"Give the path of {what}.") from None
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}.", where=str(path)) from None


def validated(reading: Reading, model: type[M]) -> M | None:
    """Return what was read as a record, or None after complaints.

    Args:
        reading: of the whole file.
        model: of the file's sections.
    """
    if not isinstance(reading.data, dict):
        what = reading.what
        reading.problems.at_value((), f"the {what} must be a mapping (key: value).", f"Begin with: {what}: 1")
        return None
    try:
        return model.parse(reading.data)
    except ValidationError as error:
        add_errors(error, model, reading.problems, what=reading.what)
        return None
