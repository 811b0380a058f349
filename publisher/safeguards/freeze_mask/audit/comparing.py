"""One set of weights against the published network and its mask. Holds one tensor of each in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from publisher.api import TensorInfo
from publisher.api.freeze_mask import FreezeMask, Rows, part
from publisher.api.weight_names import COUNTING
from publisher.safeguards.freeze_mask.audit.difference import change
from publisher.safeguards.freeze_mask.audit.equality import (
    EIGHT,
    FLOATS,
    NARROW,
    cast_of,
    constant,
    counts,
    eight_bits,
    fingerprint,
    finite,
    same_bits,
)
from publisher.safeguards.freeze_mask.audit.records import FreeTensors, FrozenVerdict, WeightsAudit

if TYPE_CHECKING:
    import torch

RELATED = 0.5
"""Cosine of all matrices together below which two networks of one architecture have nothing in common."""
KNOWN = 0.5
"""Share of the published tensors that must be there, in their shape, for a comparison by name."""

Kind = Literal["equal", "cast", "changed", "missing"]


@dataclass(frozen=True)
class Weights:
    """A network's tensors by name. Their headers were checked before."""

    tensors: Mapping[str, TensorInfo]
    """Name -> its header; there ``name`` is the one in the file and ``file`` a key of :attr:`files`."""
    files: Mapping[str, Path]

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor to the CPU, in its stored dtype, and close the file, so that its pages can go."""
        from safetensors import safe_open

        info = self.tensors[name]
        with safe_open(self.files[info.file], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(info.name)
        return tensor


@dataclass
class Kinship:
    """Were these weights trained from the published ones? Their matrices still point the same way then."""

    product: float = 0.0
    ours: float = 0.0
    theirs: float = 0.0
    same: bool = False
    """A matrix is the published one."""

    def add(self, published: torch.Tensor, found: torch.Tensor, *, kept: bool) -> None:
        """Count a tensor in, if it is a matrix of equal shape."""
        import torch

        if published.ndim < 2 or published.shape != found.shape or constant(published):
            return
        self.same = self.same or kept
        if not self.same and finite(found):
            a, b = published.reshape(-1).double(), found.reshape(-1).double()
            self.product += float(torch.dot(a, b))
            self.ours += float(torch.dot(a, a))
            self.theirs += float(torch.dot(b, b))

    @property
    def unrelated(self) -> bool:
        """Whether enough was seen to say that they are strangers."""
        scale = (self.ours * self.theirs) ** 0.5
        return not self.same and scale > 0 and self.product / scale < RELATED


class Comparison:
    """Compares a set of weights.

    Args:
        mask: of the package.
        published: the package's denoiser.
        found: the upload's tensors, under the published names; tensors beside them under their own.
    """

    def __init__(self, mask: FreezeMask, published: Weights, found: Weights) -> None:
        self.mask, self.published, self.found = mask, published, found
        self.not_finite: list[str] = []
        self._kinship = Kinship()

    def run(self, *, complete: bool = True) -> WeightsAudit:
        """Compare every tensor.

        Args:
            complete: a published tensor that is not there is *missing*; otherwise the set replaces only what it holds.
        """
        files = tuple(sorted({info.file for info in self.found.tensors.values()}))
        free = [name for name in self.published.tensors if name not in self.mask.rows]
        if complete and (reason := self._other_architecture()):
            return WeightsAudit(files=files, comparable=False, reason=reason, free=FreeTensors(tensors=len(free)))
        held = [one for one in self.mask.frozen if complete or one.name in self.found.tensors]
        frozen = tuple(self._frozen(one.name, one.rows) for one in held)
        kinds = Counter(self._free(name) for name in free if complete or name in self.found.tensors)
        unrelated = complete and self._kinship.unrelated
        return WeightsAudit(
            files=files,
            comparable=not unrelated,
            reason="has the published names and shapes, and unrelated numbers: another model" if unrelated else "",
            frozen=frozen,
            free=FreeTensors(tensors=kinds.total(), **{str(kind): count for kind, count in kinds.items()}),
            dtypes=self._dtypes(),
            unexpected=tuple(sorted(set(self.found.tensors) - set(self.published.tensors))),
        )

    def _other_architecture(self) -> str:
        ours, theirs = self.published.tensors, self.found.tensors
        known = sum(name in theirs and theirs[name].shape == info.shape for name, info in ours.items())
        if known >= KNOWN * len(ours):
            return ""
        return f"has {known} of the {len(ours)} published names and shapes: another architecture, or other names"

    def _dtypes(self) -> dict[str, int]:
        both = sorted(set(self.published.tensors) & set(self.found.tensors))
        kinds = [f"{self.published.tensors[name].dtype} as {self.found.tensors[name].dtype}" for name in both]
        return dict(sorted(Counter(kinds).items()))

    def _frozen(self, name: str, rows: Rows) -> FrozenVerdict:
        info = self.found.tensors.get(name)
        published = self.published.read(name)
        if info is None:
            return self._lost(FrozenVerdict(name=name, rows=rows, status="missing"), published)
        verdict = FrozenVerdict(name=name, rows=rows, status="changed", dtype=info.dtype)
        if reason := _incomparable(self.published.tensors[name], info):
            return self._lost(verdict.model_copy(update={"reason": reason}), published)
        whole = self.found.read(name)
        ours, theirs = part(published, rows), part(whole, rows)
        cast = cast_of(ours, theirs)
        self._kinship.add(published, whole, kept=cast is not None)
        if cast is not None:
            return verdict.model_copy(update={"status": "cast" if cast else "equal", "cast": cast})
        if not finite(theirs):
            verdict = verdict.model_copy(update={"reason": "holds NaN or infinity"})
        return self._lost(verdict.model_copy(update={"change": change(name, ours, theirs)}), published)

    def _lost(self, verdict: FrozenVerdict, published: torch.Tensor) -> FrozenVerdict:
        """Look whether the published bytes went under another name."""
        other = self._elsewhere.find(published, verdict.name)
        return verdict.model_copy(update={"status": "renamed", "found_as": other}) if other else verdict

    def _free(self, name: str) -> Kind:
        info = self.found.tensors.get(name)
        if info is None:
            return "missing"
        if _incomparable(self.published.tensors[name], info):
            return "changed"
        published, found = self.published.read(name), self.found.read(name)
        cast = cast_of(published, found)
        self._kinship.add(published, found, kept=cast is not None)
        if cast is None and not finite(found):
            self.not_finite.append(name)
        return "changed" if cast is None else "cast" if cast else "equal"

    @cached_property
    def _elsewhere(self) -> Elsewhere:
        return Elsewhere(self.found)


class Elsewhere:
    """Finds published bytes under other names. A shape's tensors are hashed when it is first asked for."""

    def __init__(self, found: Weights) -> None:
        self._found = found
        self._eight = {info.dtype for info in found.tensors.values()} & set(EIGHT)
        self._known: dict[tuple[int, ...], dict[str, list[str]]] = {}

    def find(self, published: torch.Tensor, name: str) -> str:
        """Name of the tensor in the file that is the published one, or a cast of it; empty: there is none."""
        import torch

        if constant(published):
            return ""
        known = self._of(tuple(published.shape))
        casts = [published, *(published.to(getattr(torch, FLOATS[kind])).float() for kind in NARROW)]
        casts += [one.float() for kind in sorted(self._eight) for one in eight_bits(published, kind)]
        hits = [hit for one in casts for hit in known.get(fingerprint(one), []) if hit != name]
        return min(hits, default="")

    def _of(self, shape: tuple[int, ...]) -> dict[str, list[str]]:
        if shape not in self._known:
            known: dict[str, list[str]] = {}
            for name, info in self._found.tensors.items():
                if info.shape == shape and info.dtype in FLOATS:
                    known.setdefault(fingerprint(self._found.read(name)), []).append(name)
            self._known[shape] = known
        return self._known[shape]


def _incomparable(published: TensorInfo, found: TensorInfo) -> str:
    if published.shape != found.shape:
        return f"has the shape {list(found.shape)}, published {list(published.shape)}"
    return "" if found.dtype in FLOATS else f"is stored as {found.dtype}, which is no cast that a mask knows"


def tally(published: Weights, found: Weights, names: Sequence[str]) -> Counter[str]:
    """Return how many of a component's tensors are equal, equal after a cast, changed or missing.

    Under ``renamed`` those of the first two kinds are counted again that have another name in the file.
    """
    kinds: Counter[str] = Counter()
    for name in names:
        kind = _kind(published, found, name)
        kinds[kind] += 1
        kinds["renamed"] += kind in ("equal", "cast") and name in found.tensors and found.tensors[name].name != name
    return kinds


def _kind(published: Weights, found: Weights, name: str) -> Kind:
    info = found.tensors.get(name)
    if info is None:
        return "equal" if name.endswith(COUNTING) and counts(published.read(name)) else "missing"
    if info.dtype not in FLOATS or published.tensors[name].dtype not in FLOATS:
        return "equal" if _same(published, found, name) else "changed"
    if info.shape != published.tensors[name].shape:
        return "changed"
    cast = cast_of(published.read(name), found.read(name))
    return "changed" if cast is None else "cast" if cast else "equal"


def _same(published: Weights, found: Weights, name: str) -> bool:
    return same_bits(published.read(name), found.read(name))
