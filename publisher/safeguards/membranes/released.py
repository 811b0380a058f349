"""The membranes that a package carries: ``release/membranes/index.json`` and the files beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from publisher.api.membranes import (
    INDEX,
    Membrane,
    MembraneEntry,
    MembraneFileError,
    MembraneIndex,
    parse_membrane_bytes,
)
from publisher.errors import ModelError
from publisher.program import command
from publisher.strict_json import JsonError, strict_object

MAX_INDEX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Released:
    """A package's membranes, read and checked against their index."""

    index: MembraneIndex
    members: tuple[tuple[MembraneEntry, Membrane], ...]
    """Membranes with their entries, in the index's order."""

    @property
    def attachable(self) -> bool:
        """Whether a pipeline has to attach them: false where the weights have them already (mode ``merge``)."""
        return self.index.mode == "bundle"


def read_release(folder: Path) -> Released | None:
    """Read the membranes of a package.

    Args:
        folder: its ``release`` folder, or any other that holds ``membranes/index.json``.

    Returns:
        None if there is no index.

    Raises:
        ModelError: the index is malformed, or a file is missing or not the one that the index names.
        MembraneFileError: a file is no membrane.
    """
    path = folder / INDEX
    if not path.exists():
        return None
    index = _read_index(path)
    return Released(index, tuple((entry, _read_file(path.parent / entry.file, entry)) for entry in index.entries))


def _read_index(path: Path) -> MembraneIndex:
    try:
        if path.stat().st_size > MAX_INDEX_BYTES:
            raise ModelError(f"is larger than {MAX_INDEX_BYTES} bytes", where=str(path))
        index = MembraneIndex.parse(strict_object(path.read_bytes()))
    except (OSError, JsonError) as error:
        raise ModelError(f"the index of membranes cannot be read: {error}", where=str(path)) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"the index of membranes is malformed: {place}: {first['msg']}", where=str(path)) from error
    if len({entry.file for entry in index.entries}) < len(index.entries):
        raise ModelError("the index of membranes names a file twice", where=str(path))
    return index


def _read_file(path: Path, entry: MembraneEntry) -> Membrane:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"the membrane of {entry.concept!r} cannot be read: {error}", where=str(path)) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry.sha256:
        raise ModelError(
            f"is not the membrane that the index names: sha256 {digest[:12]}..., expected {entry.sha256[:12]}...",
            where=str(path),
            hint=f"The file was changed or exchanged. Fetch the package again and run: {command('verify')}",
        )
    membrane = parse_membrane_bytes(data, str(path))
    if membrane.rank != entry.rank:
        raise MembraneFileError(f"has rank {membrane.rank}, the index says {entry.rank}", where=str(path))
    return membrane
