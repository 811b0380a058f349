"""Files that are either complete or not there, and whose bytes depend on their content alone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from publisher.api import TensorInfo
from publisher.api.header import BITS
from publisher.errors import PublisherError, UsageError


@contextmanager
def atomic(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Open a file that appears under ``path`` complete and on disk, or not at all.

    Raises:
        PublisherError: it cannot be written (disk full, no permission); nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


FULL = (errno.ENOSPC, errno.EDQUOT)
"""The device has no room, or the user has used up theirs."""
_NEXT = {
    **dict.fromkeys(FULL, "Make room there and run the same command again: what was finished is kept."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Make it writable, or give another folder."),
    errno.EFBIG: "Raise the limit for the size of a file (ulimit -f), or give a folder on another file system.",
}


def cannot_write(path: Path | str, error: OSError) -> PublisherError:
    """Return the error for what the system would not do: what, where, and what to do next."""
    what = error.strerror or str(error)
    hint = _NEXT.get(error.errno or 0, "Nothing was left behind.")
    return PublisherError(f"cannot write: {what}", where=str(path), hint=hint)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write ``data`` to ``path``, complete or not at all."""
    with atomic(path, mode) as file:
        file.write(data)


@contextmanager
def partial(target: Path) -> Iterator[Path]:
    """Make a folder beside ``target``, under a name that no other run has; gone when the block ends.

    Raises:
        PublisherError: it cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{partial_prefix(target)}-"))
        folder.chmod(0o755)
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def partial_prefix(target: Path) -> str:
    """Return how the names of its unfinished folders begin."""
    return f".{target.name}.partial"


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside ``target`` that gets its name when the block ends, and is gone if the block fails.

    Raises:
        UsageError: there is something under that name already.
    """
    if os.path.lexists(target):
        raise UsageError("is there already", where=str(target), hint="Give another name, or move it away.")
    with partial(target) as folder:
        try:
            yield folder
            folder.rename(target)
        except OSError as error:
            raise cannot_write(target, error) from error


def json_bytes(data: Any) -> bytes:
    """Return JSON with sorted keys, two spaces, UTF-8 and a final newline: equal data gives equal bytes."""
    text = json.dumps(data, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def write_safetensors(
    path: Path,
    tensors: Sequence[TensorInfo],
    read: Callable[[str], bytes],
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a safetensors file one tensor at a time: peak memory is one tensor.

    Tensors come in the order given; the header has the metadata entry ``{"format": "pt"}``, so that equal content
    gives equal bytes.

    Args:
        path: the file.
        tensors: their names, shapes and dtypes.
        read: name -> the tensor's bytes, little-endian, row-major.
        metadata: what else the header says of the file.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    position = 0
    for tensor in tensors:
        size = nbytes(tensor)
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, position + size],
        }
        position += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with atomic(path) as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in tensors:
            data = read(tensor.name)
            if len(data) != nbytes(tensor):
                raise ValueError(f"tensor {tensor.name!r}: {len(data)} bytes, expected {nbytes(tensor)}")
            file.write(data)


def nbytes(tensor: TensorInfo) -> int:
    """Return the bytes of a tensor's data."""
    return tensor.parameters * BITS[tensor.dtype] // 8
