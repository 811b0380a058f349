"""The freeze mask of a foreign package: does it fit the network beside it, and is what it names the frozen bytes? V023.

Names, shapes and shares come from the headers. What stays is hashed in the type it is stored in, straight from the
file: that needs no torch, costs one more pass over the frozen part (about a second a gigabyte), and without it a signed
mask could promise other weights than it lies beside. The digests of the other casts are checked by ``publisher audit``.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from publisher.api import TensorInfo
from publisher.api.freeze_mask import CASTS, FreezeMask, FrozenTensor, Rows, architecture_sha256, count
from publisher.api.header import BITS
from publisher.api.model_files import MASK
from publisher.codes import Code, Finding

_CHUNK = 1 << 22

Headers = Mapping[str, Mapping[str, TensorInfo]]
"""File -> its tensors; files that are malformed are not in it."""


def check_freeze_mask(document: Any, digests: Mapping[str, str], headers: Headers, root: Path) -> Iterator[Finding]:
    """Compare the mask with the denoiser beside it.

    Args:
        document: the mask as JSON data; None: it is not there, or no JSON, which is a finding of its own.
        digests: path -> sha256 of every file of the package.
        headers: of the well-formed weights among them.
        root: folder of the package, to read frozen tensors from.
    """
    if document is None:
        return
    try:
        mask = FreezeMask.parse(document)
    except (ValidationError, TypeError) as error:
        yield Finding(Code.INCONSISTENT, MASK, f"cannot be read as a freeze mask: {_first(error)}")
        return
    folder = f"{mask.component}/"
    here = [path for path in digests if path.startswith(folder) and path.endswith(".safetensors")]
    if not here or "/" in mask.component:
        yield Finding(Code.INCONSISTENT, MASK, f"is for {mask.component!r}, which has no weights here")
        return
    if any(path not in headers for path in here):
        return  # malformed weights are a finding of their own
    tensors = {name: info for path in here for name, info in headers[path].items()}
    for problem in _problems(mask, tensors):
        yield Finding(Code.INCONSISTENT, MASK, problem)
    yield from _bytes(mask, tensors, root)


def _problems(mask: FreezeMask, tensors: Mapping[str, TensorInfo]) -> Iterator[str]:
    """Yield where the mask says something else than the headers, or than itself."""
    shapes = {name: info.shape for name, info in tensors.items()}
    if mask.architecture != architecture_sha256(shapes):
        yield "is for another architecture than the weights here"
    for name, candidate in sorted(mask.candidates.items()):
        if shapes.get(name) != candidate.shape:
            there = f"has {list(shapes[name])}" if name in shapes else "has no such tensor"
            yield f"says that {name!r} is of {list(candidate.shape)}; {mask.component} {there}"
    total = sum(info.parameters for info in tensors.values())
    for name, share, frozen, of in (
        ("tensors", mask.tensors, len(mask.frozen), len(tensors)),
        ("parameters", mask.parameters, count(mask.rows, mask.candidates), total),
    ):
        if (share.frozen, share.total) != (frozen, of):
            yield f"counts {share.frozen} of {share.total} {name}; they are {frozen} of {of}"
    yield from _other_problems(mask)


def _other_problems(mask: FreezeMask) -> Iterator[str]:
    """Yield masks to compare with whose rows overlap or lie outside their tensors."""
    for other, frozen in sorted(mask.others.items()):
        for name, rows in sorted(frozen.items()):
            if not _apart(rows, mask.candidates[name].shape):
                yield f"its mask {other!r} has rows of {name!r} that overlap or lie outside"


def _apart(rows: Rows, shape: tuple[int, ...]) -> bool:
    ends = [0, *(end for _, end in rows)]
    ordered = all(before <= start < end for before, (start, end) in zip(ends, rows, strict=False))
    return ordered and (not rows or (bool(shape) and rows[-1][1] <= shape[0]))


def _bytes(mask: FreezeMask, tensors: Mapping[str, TensorInfo], root: Path) -> Iterator[Finding]:
    """Compare every frozen tensor that is there in its shape, file by file."""
    for path in sorted({info.file for info in tensors.values()}):
        here = [one for one in mask.frozen if one.name in tensors and tensors[one.name].file == path]
        try:
            yield from _file(path, [(one, tensors[one.name]) for one in here], root / path)
        except (OSError, ValueError, KeyError):
            yield Finding(Code.CHANGED_MEANWHILE, path, "cannot be read any more")


def _file(path: str, frozen: list[tuple[FrozenTensor, TensorInfo]], source: Path) -> Iterator[Finding]:
    with source.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        offsets = json.loads(file.read(length))
        for one, info in frozen:
            if info.dtype not in CASTS:
                message = f"{one.name!r} is stored as {info.dtype}; a mask knows {', '.join(CASTS)}"
                yield Finding(Code.INCONSISTENT, path, message)
            elif info.shape == one.shape:
                begin = 8 + length + offsets[one.name]["data_offsets"][0]
                if dict(one.sha256)[info.dtype] != _sha256(file, begin, info, one.rows):  # type: ignore[index]
                    yield Finding(Code.INCONSISTENT, path, f"{one.name!r} is not what {MASK} freezes")


def _sha256(file: IO[bytes], begin: int, info: TensorInfo, rows: Rows) -> str:
    """Hash a tensor's bytes as they are stored, or some of its rows; a few megabytes in memory."""
    hashed = hashlib.sha256()
    size = info.parameters * BITS[info.dtype] // 8
    row = size // info.shape[0] if rows else 0
    for start, stop in [(a * row, b * row) for a, b in rows] or [(0, size)]:
        file.seek(begin + start)
        for position in range(start, stop, _CHUNK):
            hashed.update(file.read(min(_CHUNK, stop - position)))
    return hashed.hexdigest()


def _first(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return str(error)
    problem = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
