"""A freeze mask: which parts of a denoiser a fine-tuning is to leave as they are, and how anybody can check that.

A *unit* is what is frozen as one: a whole tensor, the rows of one attention head, or one row. Masks name tensors, never
positions, so that they survive adapters and other versions of a library.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from publisher.api.params import Params

if TYPE_CHECKING:
    import torch

FILE = "freeze-mask.json"
"""Name of the artifact, below ``release/``."""
CASTS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types in which a frozen tensor is recognised, as safetensors and as torch write them."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]
Rows = tuple[Range, ...]
"""Ranges ``[start, end)`` along the first axis, ascending and apart; empty: all of the tensor."""
Frozen = Mapping[str, Rows]
"""Name of a tensor -> its frozen rows; what is not named is free."""


class Candidate(Params):
    """A tensor that could have been frozen."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    rows: int = Field(default=0, ge=0)
    """Rows of one unit; 0: the tensor is one unit."""

    @property
    def parameters(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def units(self) -> tuple[Range, ...]:
        """Return rows of every unit; of a whole tensor (also one of no axis) ``(0, 0)``, which stands for all of it."""
        if not self.rows or not self.shape:
            return ((0, 0),)
        return tuple((i, min(i + self.rows, self.shape[0])) for i in range(0, self.shape[0], self.rows))

    def size(self, unit: Range) -> int:
        """Return elements of a unit."""
        if unit == (0, 0):
            return self.parameters
        return (unit[1] - unit[0]) * (self.parameters // self.shape[0] if self.shape[0] else 0)


class FrozenTensor(Params):
    """A tensor that stays, or rows of it that do."""

    name: str = Field(min_length=1)
    """In the denoiser's ``state_dict``."""
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    """Of the whole tensor."""
    rows: Rows = ()
    """What of it stays; empty: all."""
    sha256: dict[Literal["F32", "F16", "BF16"], Digest]
    """Of the raw little-endian bytes of what stays, after a cast from the published tensor to each type."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if set(self.sha256) != set(CASTS):
            raise ValueError(f"{self.name}: sha256 must have {', '.join(CASTS)}")
        ends = [0, *(end for _, end in self.rows)]
        if any(start < before or end <= start for before, (start, end) in zip(ends, self.rows, strict=False)):
            raise ValueError(f"{self.name}: rows must ascend and be apart")
        if self.rows and (not self.shape or self.rows[-1][1] > self.shape[0]):
            raise ValueError(f"{self.name}: rows lie outside the tensor")
        return self


class Share(Params):
    """So many of so many."""

    frozen: int = Field(ge=0)
    total: int = Field(ge=1)

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.frozen > self.total:
            raise ValueError("more is frozen than there is")
        return self

    @property
    def value(self) -> float:
        """In [0, 1]."""
        return self.frozen / self.total


class FreezeMask(Params):
    """``release/freeze-mask.json``."""

    freeze_mask: Literal[1] = 1
    """Version of this schema."""
    component: str = Field(min_length=1)
    """Folder of the denoiser, as its family names it."""
    model: str
    """Digest of the weights that the mask was learned for; a mask is good for no others."""
    architecture: Digest
    """:func:`architecture_sha256` of the component."""
    granularity: Literal["tensor", "head", "row"] = "tensor"
    """What a unit is."""
    recipe: dict[str, Any]
    """How it was learned: step, version, parameters, concepts."""
    tensors: Share
    """Tensors that are frozen, in part or in full, of all of the component. Most tensors are tiny: read this ratio
    beside the other one."""
    parameters: Share
    """Numbers that are frozen, of all of the component."""
    candidates: dict[str, Candidate]
    """Name -> what could have been frozen: masks to compare with are sampled from these."""
    frozen: tuple[FrozenTensor, ...]
    """By name."""
    others: dict[str, dict[str, Rows]] = Field(default_factory=dict)
    """Masks of the same share to compare with, such as ``"seed-1"``: learned again from another seed."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        names = [tensor.name for tensor in self.frozen]
        if sorted(set(names)) != names:
            raise ValueError("frozen tensors must be sorted by name, each once")
        for name in (*names, *(name for other in self.others.values() for name in other)):
            if name not in self.candidates:
                raise ValueError(f"{name} is frozen and no candidate")
        if any(tensor.shape != self.candidates[tensor.name].shape for tensor in self.frozen):
            raise ValueError("a frozen tensor has another shape than its candidate")
        return self

    @property
    def rows(self) -> dict[str, Rows]:
        """What is frozen, as :data:`Frozen`."""
        return {tensor.name: tensor.rows for tensor in self.frozen}

    def as_file(self) -> bytes:
        """Return the bytes of the artifact: equal masks give equal bytes."""
        return (json.dumps(self.as_json(), indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def architecture_sha256(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return names and shapes of a component's tensors as one digest: equal where tensors can be compared by name."""
    lines = "".join(f"{name} {'x'.join(map(str, shapes[name]))}\n" for name in sorted(shapes))
    return hashlib.sha256(lines.encode()).hexdigest()


def joined(units: Iterable[Range], candidate: Candidate) -> Rows:
    """Return units of one tensor as rows: neighbours become one range; all units become none, which is the tensor."""
    ranges: list[Range] = []
    for start, end in sorted(set(units)):
        if ranges and ranges[-1][1] == start:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((start, end))
    whole = (0, candidate.shape[0]) if candidate.rows and candidate.shape else (0, 0)
    return () if ranges == [whole] else tuple(ranges)


def count(frozen: Frozen, candidates: Mapping[str, Candidate]) -> int:
    """Return parameters that are frozen."""
    return sum(
        sum(candidates[name].size(part) for part in rows) if rows else candidates[name].parameters
        for name, rows in frozen.items()
    )


def top(scores: Mapping[tuple[str, Range], float], candidates: Mapping[str, Candidate], budget: int) -> dict[str, Rows]:
    """Return the units with the highest score, one after the other, as long as they stay within ``budget`` parameters.

    A unit that does not fit is passed over for smaller ones behind it, so the budget is met to less than the smallest
    unit that is left. Equal scores go by name.

    Args:
        scores: of every unit.
        candidates: their tensors.
        budget: parameters.
    """
    chosen: dict[str, list[Range]] = {}
    left = budget
    for name, unit in sorted(scores, key=lambda key: (-scores[key], key)):
        size = candidates[name].size(unit)
        if 0 < size <= left:
            left -= size
            chosen.setdefault(name, []).append(unit)
    return {name: joined(units, candidates[name]) for name, units in sorted(chosen.items())}


def random_mask(candidates: Mapping[str, Candidate], budget: int, generator: torch.Generator) -> dict[str, Rows]:
    """Return units in random order within a budget of parameters: what a learned mask has to be better than.

    Args:
        candidates: of the mask to compare with.
        budget: its frozen parameters (:attr:`FreezeMask.parameters`).
        generator: on the CPU; the only source of random numbers.
    """
    import torch

    keys = [(name, unit) for name in sorted(candidates) for unit in candidates[name].units()]
    order = torch.randperm(len(keys), generator=generator).tolist()
    return top({key: -float(place) for key, place in zip(keys, order, strict=True)}, candidates, budget)


def jaccard(one: Frozen, other: Frozen, candidates: Mapping[str, Candidate]) -> float:
    """Return parameters that both masks freeze, of those that at least one does; 1 for two empty masks."""
    both = either = Fraction(0)
    for name in one.keys() | other.keys():
        a, b = (_marked(mask, name, candidates[name]) for mask in (one, other))
        row = Fraction(candidates[name].parameters, _length(candidates[name]))
        both, either = both + len(a & b) * row, either + len(a | b) * row
    return float(both / either) if either else 1.0


def _length(candidate: Candidate) -> int:
    return max(candidate.shape[0], 1) if candidate.shape else 1


def _marked(mask: Frozen, name: str, candidate: Candidate) -> set[int]:
    if name not in mask:
        return set()
    return {row for start, end in mask[name] or ((0, _length(candidate)),) for row in range(start, end)}


def part(tensor: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Return what of a tensor a mask means, rows after one another."""
    import torch

    return torch.cat([tensor[start:end] for start, end in rows]) if rows else tensor


def digests(tensor: torch.Tensor, rows: Rows = ()) -> dict[str, str]:
    """Return sha256 of what stays of a published tensor, for each type of :data:`CASTS`."""
    kept = part(tensor, rows)
    return {name: digest(kept, name) for name in CASTS}


def digest(tensor: torch.Tensor, cast: str) -> str:
    """Return sha256 of a tensor's raw bytes after a cast.

    Args:
        tensor: any floating type, any device.
        cast: ``"F32"``, ``"F16"`` or ``"BF16"``.
    """
    import torch

    raw = tensor.detach().to("cpu", getattr(torch, CASTS[cast])).contiguous()
    return hashlib.sha256(raw.view(-1).view(torch.uint8).numpy().data).hexdigest()
