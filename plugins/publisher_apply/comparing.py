"""Tensors of two files compared where they lie, a piece at a time: what differs, what a cast would round. No torch.

Memory: one piece of both, however large the tensor is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import TensorInfo

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECE = 1 << 22
"""Elements of one piece: 16 MB of float32."""
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Type of tensors that can be cast -> how it is read."""
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True)
class Slice:
    """A tensor in a file."""

    path: Path
    info: TensorInfo
    span: tuple[int, int]
    """First byte in the file, and the byte behind the last one."""


@dataclass(frozen=True)
class ElementDifference:
    """A tensor from elsewhere against the base model's, in the base model's type."""

    changed: int
    """Elements that differ."""
    rounded: int = 0
    """Elements that the base model's type cannot hold, so that they are rounded."""
    broken: int = 0
    """Elements that are NaN or infinity, or become so in the base model's type."""


def compare(found: Slice, base: Slice) -> ElementDifference:
    """Return how a tensor differs from the base model's, both of one shape and of types in :data:`FLOATS`, or equal."""
    import numpy as np

    changed = rounded = broken = 0
    for first, second in zip(_pieces(found), _pieces(base), strict=True):
        if found.info.dtype == base.info.dtype:
            cast = first
            differ = int(np.count_nonzero(first.view(_bits(first)) != second.view(_bits(second))))
        else:
            wide = _widen(first, found.info.dtype)
            cast = _narrow(wide, base.info.dtype)
            differ = int(np.count_nonzero(cast.view(_bits(cast)) != second.view(_bits(second))))
            same = _widen(cast, base.info.dtype) == wide
            rounded += int(np.count_nonzero(~same & np.isfinite(wide)))
        changed += differ
        if differ and base.info.dtype in FLOATS:
            broken += int(np.count_nonzero(~np.isfinite(_widen(cast, base.info.dtype))))
    return ElementDifference(changed, rounded, broken)


def _pieces(one: Slice) -> Any:
    import numpy as np

    size = BYTES[one.info.dtype]
    kind = FLOATS.get(one.info.dtype, f"<u{size}")
    begin, end = one.span
    with one.path.open("rb") as stream:
        stream.seek(begin)
        left = (end - begin) // size
        while left:
            count = min(left, PIECE)
            yield np.fromfile(stream, dtype=kind, count=count)
            left -= count


def _bits(values: NDArray[Any]) -> str:
    return f"<u{values.dtype.itemsize}"


def _widen(values: NDArray[Any], dtype: str) -> NDArray[np.float64]:
    import numpy as np

    if dtype == "BF16":
        return (values.astype("<u4") << 16).view("<f4").astype(np.float64)
    return values.astype(np.float64)


def _narrow(wide: NDArray[np.float64], dtype: str) -> NDArray[Any]:
    """Return the values in another type, rounded to the nearest, ties to even, as torch does."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        if dtype != "BF16":
            return wide.astype(FLOATS[dtype])
        single = wide.astype("<f4")
    bits = single.view("<u4")
    even = bits + 0x7FFF + ((bits >> 16) & 1)
    return np.where(np.isnan(single), np.uint32(0x7FC0), even >> 16).astype("<u2")
