"""Membranes added to the weights of a model: a new folder beside the old one.

    W' = W + sum_c gamma_c s_c up_c down_c        in float64, one host at a time, rounded once to the stored dtype

The sum is exact for any number of membranes: factors are never added up, so there are no cross terms. What a merged
model has is constant: its permeability no longer depends on the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api.membranes import Branch, Host, find_hosts, require_fit, weight_change
from publisher.errors import ModelError, UsageError
from publisher.model.copying import Overwrite, copy_file
from publisher.model.files import atomic_folder
from publisher.model.folder import ModelFolder
from publisher.model.tensors import tensor_bytes
from publisher.safeguards.membranes.lora import Portion

if TYPE_CHECKING:
    from torch import Tensor

CARD = "README.md"
DTYPES = ("F64", "F32", "F16", "BF16")
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Merged:
    """What a merge did."""

    tensors: int
    """Weights that were changed."""
    change: float
    """Norm of the change, relative to the norm of the weights that were changed."""
    lost: float
    """Norm of what rounding to the stored dtype took away or added, relative to the norm of the change."""
    left_out: tuple[str, ...]
    """Files of the model's folder that the new one does not have."""


def merge(base: ModelFolder, portions: Sequence[Portion], out: Path, progress: Progress = lambda *_: None) -> Merged:
    """Write ``base`` with membranes in its weights to ``out``, which appears complete or not at all.

    Everything but the hosts' weights is copied as it is; of a package, the model alone. One weight is in memory at a
    time.

    Args:
        base: is only read.
        portions: the membranes with their permeabilities.
        out: a new folder.
        progress: is called with the number of weights done and of all.

    Raises:
        MembraneFileError: a membrane does not fit. Nothing has been written then.
        UsageError: ``out`` exists or lies inside the model.
        ModelError: a weight is not of a floating dtype, or the sum is too large for it.
    """
    if out.resolve().is_relative_to(base.path):
        raise UsageError("lies inside the model that is merged into", where=str(out), hint="Give another folder.")
    hosts = find_hosts(base)
    for portion in portions:
        require_fit(portion.membrane, hosts, str(portion.path))
    job = _Job(base, portions, hosts, progress)
    package = (base.path / "release").is_dir()
    with atomic_folder(out) as folder:
        for name, source in base.files.items():
            if package and name == CARD:  # it speaks of a signed release
                continue
            job.write(name, source, folder / name)
    left_out = [name for name in base.ignored if not name.startswith("release/")]
    return job.result((*left_out, *((CARD, "release/", "model.sig") if package else ())))


class _Job:
    """The weights of one merge, and its sums of squares."""

    def __init__(
        self, base: ModelFolder, portions: Sequence[Portion], hosts: Mapping[str, Host], progress: Progress
    ) -> None:
        self._tensors = base.tensors(base.anatomy.denoiser)
        self._branches: dict[str, list[tuple[float, Branch]]] = {}
        for portion in portions:
            for stem, branch in portion.membrane.branches.items():
                self._branches.setdefault(f"{hosts[stem].module}.weight", []).append((portion.gamma, branch))
        self._progress = progress
        self._done, self._weight, self._change, self._lost = 0, 0.0, 0.0, 0.0

    def write(self, name: str, source: Path, target: Path) -> None:
        """Copy a file of the model, with the membranes in the weights that it holds."""
        here = {key for key, info in self._tensors.items() if info.file == name and key in self._branches}
        copy_file(
            source,
            target,
            Overwrite(here, lambda key: self._merged(key, self._tensors[key].dtype, source)) if here else None,
        )

    def _merged(self, key: str, dtype: str, source: Path) -> bytes:
        from safetensors import safe_open

        if dtype not in DTYPES:
            raise ModelError(f"{key} is stored as {dtype}, no membrane can be added to it", where=str(source))
        with safe_open(source, framework="pt") as file:
            old: Tensor = file.get_tensor(key)
        change = weight_change(self._branches[key], old.shape)
        exact = old.double() + change
        new = exact.to(old.dtype)
        if not new.isfinite().all():
            raise ModelError(f"{key} has NaN or infinity, or gets too large for {dtype}", where=str(source))
        self._done += 1
        self._weight += float(old.double().square().sum())
        self._change += float(change.square().sum())
        self._lost += float((new.double() - exact).square().sum())
        self._progress(self._done, len(self._branches))
        return tensor_bytes(new)

    def result(self, left_out: tuple[str, ...]) -> Merged:
        """Return what was done."""
        change = (self._change / self._weight) ** 0.5 if self._weight else 0.0
        lost = (self._lost / self._change) ** 0.5 if self._change else 0.0
        return Merged(self._done, change, lost, left_out)
