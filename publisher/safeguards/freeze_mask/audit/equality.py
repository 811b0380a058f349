"""Is a tensor the published one: bit for bit, or after a cast?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.api.freeze_mask import CASTS, digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

EIGHT = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
"""Types of 8 bits. A file in one of them was mostly made of one in 16 bits, so numbers may be rounded twice."""
FLOATS = {**CASTS, "F64": "float64", **EIGHT}
"""Types in which a tensor can be compared with the published one; a tensor in any other is a different tensor."""
NARROW = ("F16", "BF16")


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether type, shape and bytes are equal: a negative zero is no zero, a NaN equals its copy."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    a, b = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(a, b)


def cast_of(published: torch.Tensor, found: torch.Tensor) -> str | None:
    """Return the cast that makes ``found`` of ``published``.

    A tensor that was cast to 16 bits and back has lost what that type cannot hold; casting the published one the same
    way gives the same bits.

    Args:
        published: of a floating type.
        found: of one of :data:`FLOATS`, of equal shape.

    Returns:
        Empty: none, they are bit-equal. A name of :data:`FLOATS`: its rounding explains everything. None: they differ.
    """
    import torch

    if same_bits(published, found):
        return ""
    stored = next(name for name, kind in FLOATS.items() if getattr(torch, kind) == found.dtype)
    if stored in EIGHT:
        return stored if any(same_bits(one, found) for one in eight_bits(published, stored)) else None
    for name in dict.fromkeys((stored, *NARROW)):
        if same_bits(published.to(getattr(torch, FLOATS[name])).to(found.dtype), found):
            return name
    return None


def eight_bits(published: torch.Tensor, kind: str) -> Iterator[torch.Tensor]:
    """Yield what tools make of a tensor in 8 bits: rounded at once, or to 16 bits first; too large, or cut off.

    Args:
        published: of a floating type.
        kind: a name of :data:`EIGHT`.
    """
    import torch

    dtype = getattr(torch, EIGHT[kind])
    limit = torch.finfo(dtype).max
    for first in (published.dtype, *(getattr(torch, FLOATS[name]) for name in NARROW)):
        wide = published.to(first).float()
        yield wide.to(dtype)
        if bool((wide.abs() > limit).any()):
            yield wide.clamp(-limit, limit).to(dtype)


def fingerprint(tensor: torch.Tensor) -> str:
    """Return the sha256 of the numbers in float32, which holds those of all narrower types."""
    return digest(tensor, "F32")


def finite(tensor: torch.Tensor) -> bool:
    """Return whether no number is NaN or infinite, of any floating type."""
    wide = tensor.float() if tensor.element_size() == 1 else tensor
    return bool(wide.isfinite().all())


def constant(tensor: torch.Tensor) -> bool:
    """Return whether all numbers are one: such tensors equal each other by chance."""
    return tensor.numel() < 2 or bool((tensor == tensor.reshape(-1)[0]).all())


def counts(tensor: torch.Tensor) -> bool:
    """Return whether a tensor counts from 0: then it says nothing that its length does not."""
    import torch

    return torch.equal(tensor.reshape(-1).double(), torch.arange(tensor.numel(), dtype=torch.float64))
