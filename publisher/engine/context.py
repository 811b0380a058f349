"""What a running step may use: the engine's side of :class:`publisher.api.StepContext`."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch

from publisher.api import Curve, Number, References, StepContext
from publisher.api.steps import MOST_POINTS
from publisher.engine.cache import Identity
from publisher.engine.progress import Progress
from publisher.engine.references import Source
from publisher.errors import PluginError
from publisher.model.files import write_atomic, write_safetensors
from publisher.model.state import State
from publisher.model.tensors import dtype_name, tensor_bytes
from publisher.runtime.meter import Meter

ARTIFACT = re.compile(r"^[a-z0-9][a-z0-9._-]{0,127}(/[a-z0-9][a-z0-9._-]{0,127})?\.(json|safetensors)$")


def derive_seed(seed: int, *names: str) -> int:
    """Return a seed in [0, 2**63) for what ``names`` name."""
    digest = hashlib.sha256("/".join([str(seed), *names]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class RunningStep(StepContext):
    """Collects a step's result in memory: changed tensors only.

    Args:
        identity: of the step.
        model: the state before it.
        scratch: a folder of its own.
        progress: is told how far it is.
        references: gives reference images; None: the step has not said that it needs some.
    """

    def __init__(
        self,
        identity: Identity,
        model: State,
        scratch: Path,
        progress: Progress,
        references: Source | None = None,
    ) -> None:
        self.scope = identity.scope
        self.model: State = model
        self.device = torch.device(identity.device.name)
        self.dtype = getattr(torch, identity.device.dtype)
        self.scratch = scratch
        self.tensors: dict[tuple[str, str], torch.Tensor] = {}
        self.artifacts: dict[str, bytes] = {}
        self.numbers: list[Number] = []
        self.curves: list[Curve] = []
        self.warnings: list[str] = []
        self.identity, self._step, self._progress = identity, identity.id, progress
        self._references = references

    def write(self, component: str, name: str, tensor: torch.Tensor) -> None:
        """Set a tensor of the result."""
        if component not in self.model.components or name not in self.model.tensors(component):
            raise self._error(f"wrote {component}/{name}, which the model does not have")
        info = self.model.tensors(component)[name]
        if tuple(tensor.shape) != info.shape or dtype_name(tensor) != info.dtype:
            raise self._error(
                f"wrote {component}/{name} as {dtype_name(tensor)} {tuple(tensor.shape)}, "
                f"the model has {info.dtype} {info.shape}"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise self._error(f"wrote NaN or infinity into {component}/{name}")
        self.tensors[component, name] = tensor.detach().to("cpu", copy=True).contiguous()

    def artifact(self, name: str, data: bytes) -> None:
        """Add a file to the package."""
        if not ARTIFACT.match(name):
            raise self._error(f"named an artifact {name!r}: lower case, at most one folder, .json or .safetensors")
        if name in self.artifacts:
            raise self._error(f"wrote the artifact {name!r} twice")
        self.artifacts[name] = bytes(data)

    def generator(self, purpose: str) -> torch.Generator:
        """Make a CPU generator for one purpose."""
        return torch.Generator().manual_seed(derive_seed(self.identity.seed, self._step, purpose))

    def references(self, concept: str, count: int) -> References:
        """Return images of a concept."""
        return self.references_of({concept: count})[concept]

    def references_of(self, counts: Mapping[str, int]) -> dict[str, References]:
        """Return images of several concepts, generated together."""
        if self._references is None:
            raise self._error("asked for reference images, but its class does not say 'references = True'")
        with Meter(self.progress, sum(counts.values()), "reference images"):
            return self._references(counts)

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Say how far the step is."""
        self._progress.update(self._step, done, total, text)

    def record(self, name: str, value: float, unit: str = "") -> None:
        """Record a number for the report."""
        # The last digits depend on how many threads summed it, and a result must not.
        self.numbers.append(Number(name=name, value=float(f"{value:.9g}"), unit=unit))

    def curve(self, name: str, x: Sequence[float], y: Sequence[float], unit: str = "") -> None:
        """Record a curve for the report."""
        if len(x) != len(y) or not 0 < len(x) <= MOST_POINTS:
            raise self._error(f"recorded the curve {name!r} with {len(x)} and {len(y)} points, at most {MOST_POINTS}")
        if not all(math.isfinite(value) for value in (*x, *y)) or any(a >= b for a, b in pairwise(x)):
            raise self._error(f"recorded the curve {name!r} with x that does not ascend, NaN or infinity")
        self.curves.append(Curve(name=name, x=tuple(map(float, x)), y=tuple(map(float, y)), unit=unit))

    def warn(self, message: str) -> None:
        """Record a warning for report and terminal, once: what its plan said already is not said again."""
        if message in self.warnings:
            return
        self.warnings.append(message)
        self._progress.warn(f"{self._step}: {message}")

    def changed(self) -> dict[str, list[str]]:
        """Return component -> names of the tensors written, both sorted."""
        found: dict[str, list[str]] = {}
        for component, name in sorted(self.tensors):
            found.setdefault(component, []).append(name)
        return found

    def save(self, folder: Path) -> None:
        """Write delta and artifacts into a cache entry."""
        for component, names in self.changed().items():
            infos = [self.model.tensors(component)[name] for name in names]
            path = folder / "delta" / f"{component}.safetensors"
            write_safetensors(path, infos, lambda name, part=component: tensor_bytes(self.tensors[part, name]))  # type: ignore[misc]
        for name, data in sorted(self.artifacts.items()):
            write_atomic(folder / "artifacts" / name, data)

    def _error(self, what: str) -> PluginError:
        origin = self.identity.origin
        return PluginError(
            f"step {self._step!r} {what}",
            hint=f"The step is {origin.module} of {origin.distribution} {origin.version}.",
        )
