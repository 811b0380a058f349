"""The header of a safetensors file, read strictly and without torch.

``safetensors`` itself accepts duplicate names, unknown fields and any name at all; a release tool must not.
Format: 8 bytes little-endian header length, the header as JSON, then the tensors' bytes without gaps.
"""

from __future__ import annotations

import math
import stat
import struct
from pathlib import Path
from typing import Any

from publisher.api.models import TensorInfo
from publisher.strict_json import JsonError, strict_object

MAX_HEADER = 8 * 1024 * 1024
MAX_TENSORS = 50_000
MAX_NAME = 512
MAX_ENTRIES = 32 * MAX_TENSORS
"""JSON values of a header: its tensors, their fields, and as many sizes and offsets as tensors usually have."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""First bytes of a file that Git LFS has left in place of the real one."""
PULL = "run 'git lfs pull' where it was cloned, or fetch the file itself"
BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}


class HeaderError(ValueError):
    """The file is no well-formed safetensors file; the message says what is wrong."""


def read_header(path: Path, file: str = "") -> dict[str, TensorInfo]:
    """Read every tensor of a safetensors file, sorted by name, with sizes and gaps checked against the file.

    Args:
        path: the file.
        file: what to call it in the result; default its name.

    Raises:
        HeaderError: truncated, extended, over the limits, duplicate or odd names, unknown dtype, overlapping data.
        OSError: the file cannot be read.
    """
    return _read(path, file or path.name)[0]


def read_spans(path: Path) -> dict[str, tuple[int, int]]:
    """Return name -> first byte of a tensor's data in the file, and the byte behind its last one.

    Raises:
        HeaderError: as :func:`read_header` does.
        OSError: the file cannot be read.
    """
    return _read(path, path.name)[1]


def _read(path: Path, file: str) -> tuple[dict[str, TensorInfo], dict[str, tuple[int, int]]]:
    length = header_length(path)
    with path.open("rb") as stream:
        stream.seek(8)
        raw = stream.read(length)
    if len(raw) < length:
        raise HeaderError("truncated header")
    start = 8 + length
    tensors, spans = _tensors(_parse(raw), path.stat().st_size - start, file)
    return tensors, {name: (start + begin, start + end) for begin, end, name in spans}


def header_length(path: Path) -> int:
    """Return how many bytes the header of a safetensors file has.

    Raises:
        HeaderError: the file is too short to say, or they are too many.
        OSError: the file cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise HeaderError("not a regular file")
    with path.open("rb") as stream:
        start = stream.read(len(POINTER))
    if start == POINTER:
        raise HeaderError(f"a Git LFS pointer in place of the weights: {PULL}")
    if len(start) < 8:
        raise HeaderError("shorter than a header")
    length = int(struct.unpack("<Q", start[:8])[0])
    if length > MAX_HEADER:
        raise HeaderError(f"header of {length} bytes; at most {MAX_HEADER} are allowed")
    return length


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        header = strict_object(raw, MAX_ENTRIES)
    except JsonError as error:
        raise HeaderError(f"the header {error}") from None
    if not raw.startswith(b"{"):
        raise HeaderError("the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("__metadata__ must map text to text")
    if len(header) > MAX_TENSORS:
        raise HeaderError(f"{len(header)} tensors; at most {MAX_TENSORS} are allowed")
    return header


def _tensors(header: dict[str, Any], size: int, file: str) -> tuple[dict[str, TensorInfo], list[tuple[int, int, str]]]:
    spans, found = [], {}
    for name in sorted(header):
        begin, end, found[name] = _tensor(name, header[name], file)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            raise HeaderError(f"tensor {name!r} begins at byte {begin}, expected {position}: a gap or an overlap")
        position = end
    if position != size:
        raise HeaderError(f"the file holds {size} bytes of tensors, its header describes {position}")
    return found, spans


def _tensor(name: str, entry: Any, file: str) -> tuple[int, int, TensorInfo]:
    if not name or len(name) > MAX_NAME or not name.isprintable() or not name.isascii() or "/" in name:
        raise HeaderError(f"tensor name {name[:80]!r} is not allowed")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"tensor {name!r} must have dtype, shape and data_offsets, nothing else")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2 or len(shape) > 16:
        raise HeaderError(f"tensor {name!r} has a malformed shape or data_offsets")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise HeaderError(f"tensor {name!r} has the unknown dtype {str(dtype)[:80]!r}")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * BITS[dtype]:
        raise HeaderError(f"tensor {name!r} has {end - begin} bytes, which is not its shape times its dtype")
    return begin, end, TensorInfo(name, tuple(shape), dtype, file)


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**53 for value in values)
