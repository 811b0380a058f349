"""Copies of large files: one pass over the bytes, some tensors overwritten, blocks shared where the file system can.

A copy is a file of its own: what happens to the source later does not reach it, which a hard link could not promise.
Where source and target lie on one file system that can share blocks (btrfs, XFS, bcachefs, ZFS), the copy takes no time
and no room until one of the two is written to. Elsewhere it is read and written once. Memory holds one tensor.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from publisher.api.header import read_spans
from publisher.errors import PublisherError
from publisher.model.digest import sha256_file
from publisher.model.files import atomic

CHUNK = 1 << 22
"""Bytes that are read at once."""
_CLONE: int | None = getattr(fcntl, "FICLONE", None)  # Linux alone has it


@dataclass(frozen=True)
class Overwrite:
    """Tensors of a safetensors file that get other bytes. Names, shapes and dtypes stay, and so does the header."""

    names: Collection[str]
    """Names of the tensors; each is in the file."""
    read: Callable[[str], bytes | None]
    """Function from a tensor's name to its new bytes, little-endian, row-major; None: it stays as it is."""

    def pieces(self, source: Path) -> Iterator[tuple[int, bytes]]:
        """Yield the first byte's place in the file and the new bytes, tensor by tensor in the file's order.

        Args:
            source: the file whose tensors are overwritten.

        Raises:
            HeaderError: the file is malformed.
            KeyError: it has no such tensor.
            ValueError: the new bytes of a tensor are more or fewer than its old ones.
        """
        spans = read_spans(source)
        for name in sorted(self.names, key=lambda name: (spans[name], name)):
            begin, end = spans[name]
            data = self.read(name)
            if data is None:
                continue
            if len(data) != end - begin:
                raise ValueError(f"tensor {name!r}: {len(data)} bytes, expected {end - begin}")
            yield begin, data


def copy_file(source: Path, target: Path, overwrite: Overwrite | None = None) -> str:
    """Copy a file, complete and on disk or not at all, mode 0644.

    Args:
        source: a regular file; a link is followed.
        target: appears when it is whole.
        overwrite: tensors that get other bytes, if the file has tensors; None: none.

    Returns:
        sha256 of the copy, in lower-case hex: made of the bytes that were written, or, where blocks are shared, of
        those that can be read back.

    Raises:
        PublisherError: the source cannot be read, or the target not be written.
    """
    pieces = iter(()) if overwrite is None else overwrite.pieces(source)
    try:
        reader = source.open("rb")
    except OSError as error:
        raise _cannot_read(source, error) from error
    with reader, atomic(target) as writer:
        if not _share(reader, writer):
            return _stream(reader, writer, source, pieces)
        for begin, data in pieces:
            writer.seek(begin)
            writer.write(data)
    return sha256_file(target)


def _share(reader: IO[bytes], writer: IO[bytes]) -> bool:
    """Make the target a copy of the source that shares its blocks. False: it cannot, and the target is still empty."""
    if _CLONE is None:
        return False
    try:
        fcntl.ioctl(writer.fileno(), _CLONE, reader.fileno())
    except OSError:
        return False
    return True


def _stream(reader: IO[bytes], writer: IO[bytes], source: Path, pieces: Iterator[tuple[int, bytes]]) -> str:
    """Write the source with the pieces in their places; sha256 of what was written."""
    digest, place, size = hashlib.sha256(), 0, os.fstat(reader.fileno()).st_size
    for begin, data in pieces:
        _pass(reader, writer, digest.update, source, begin - place)
        writer.write(data)
        digest.update(data)
        place = reader.seek(begin + len(data))
    _pass(reader, writer, digest.update, source, size - place)
    return digest.hexdigest()


def _pass(reader: IO[bytes], writer: IO[bytes], update: Callable[[bytes], None], source: Path, count: int) -> None:
    while count:
        try:
            data = reader.read(min(CHUNK, count))
        except OSError as error:
            raise _cannot_read(source, error) from error
        if not data:
            raise PublisherError("ended early: something is writing to it", where=str(source), hint="Run it again.")
        update(data)
        writer.write(data)
        count -= len(data)


def _cannot_read(source: Path, error: OSError) -> PublisherError:
    hint = "Give yourself the right to read it, or fetch it again."
    return PublisherError(f"cannot be copied: {error.strerror or error}", where=str(source), hint=hint)
