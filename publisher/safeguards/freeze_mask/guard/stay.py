"""What stays of one tensor, and whether a tensor still has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from publisher.api.freeze_mask import CASTS, FrozenTensor, Rows, digest, digests, part


@dataclass(frozen=True)
class Stay:
    """What stays of one tensor."""

    rows: Rows
    """Rows that are frozen; empty: all of the tensor."""
    sha256: Mapping[str, str]
    """Digest for each type of :data:`publisher.api.freeze_mask.CASTS`."""

    @classmethod
    def of(cls, tensor: torch.Tensor, rows: Rows) -> Stay:
        """Take the tensor as it is now."""
        return cls(rows, digests(tensor, rows))

    @classmethod
    def published(cls, tensor: FrozenTensor) -> Stay:
        """Take the tensor as a mask says."""
        return cls(tensor.rows, dict(tensor.sha256.items()))

    def is_in(self, tensor: torch.Tensor) -> bool:
        """Return whether the tensor still has it: in its own type, or cast to another one and back.

        Args:
            tensor: of the shape that the mask says.
        """
        kept = part(tensor.detach(), self.rows)
        return any(digest(kept, cast) == self.sha256[cast] and _survives(kept, cast) for cast in _nearest_first(kept))


def _nearest_first(tensor: torch.Tensor) -> list[str]:
    return sorted(CASTS, key=lambda cast: getattr(torch, CASTS[cast]) != tensor.dtype)


def _survives(tensor: torch.Tensor, cast: str) -> bool:
    """Return whether a cast loses nothing: its digest after the cast then speaks for all of the tensor."""
    dtype = getattr(torch, CASTS[cast])
    return tensor.dtype == dtype or bool(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor))
