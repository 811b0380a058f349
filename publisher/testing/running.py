"""A step that runs outside a release: the engine's own context, invented reference images, a stop in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from publisher.api import Origin, Params, PluginError, References, Scope, Step
from publisher.engine.cache import Identity
from publisher.engine.context import RunningStep
from publisher.engine.device import Device
from publisher.engine.progress import Progress
from publisher.engine.references import Source
from publisher.model.state import State
from publisher.model.tensors import tensor_bytes

ORIGIN = Origin(distribution="publisher-testing", version="1", module="publisher.testing")


class Silent:
    """Progress that shows nothing."""

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Ignore how far a step is."""

    def say(self, text: str) -> None:
        """Ignore a line."""

    def warn(self, text: str) -> None:
        """Ignore a warning."""


class StoppedError(Exception):
    """A run was stopped, as if by a signal."""


class StoppingAt(Silent):
    """Progress that stops the run when it is told of so many pieces of work."""

    def __init__(self, done: int) -> None:
        self.done = done

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:  # noqa: ARG002 - as the engine calls it
        """End the run when it is time.

        Raises:
            StoppedError: so many pieces are done.
        """
        if done == self.done:
            raise StoppedError


def invented_images(scope: Scope, size: tuple[int, int] = (8, 8)) -> Source:
    """Return a source of reference images: noise around a colour of each concept's own.

    Args:
        scope: the concepts that can be asked for.
        size: height and width of the images, in pixels.
    """

    def images(name: str, count: int) -> References:
        prompts = scope.concept(name).prompts
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        colour = torch.rand(1, 3, 1, 1, generator=generator)
        pixels = (colour + 0.2 * torch.rand(count, 3, *size, generator=generator)).clamp(0, 1)
        return References(pixels, tuple(prompts[i % len(prompts)] for i in range(count)))

    return lambda counts: {name: images(name, count) for name, count in counts.items()}


def context_of(  # noqa: PLR0913 - all that an engine decides
    step: type[Step[Any]],
    params: Params,
    model: State,
    scope: Scope,
    scratch: Path,
    *,
    seed: int = 0,
    dtype: str = "float32",
    progress: Progress | None = None,
) -> WatchedStep:
    """Return a context as the engine makes it, on the CPU. It collects what the step writes.

    Args:
        step: class of the step.
        params: its parameters.
        model: state before the step.
        scope: the step's concepts.
        scratch: folder for checkpoints.
        seed: the manifest's.
        dtype: of the networks that are run.
        progress: is told how far it is.
    """
    identity = Identity(
        name=step.name,
        version=step.version,
        origin=ORIGIN,
        id=step.name,
        params=params.as_json(),
        scope=scope,
        seed=seed,
        device=Device("cpu", dtype),
        versions={},
    )
    images = invented_images(scope, model.anatomy.latents.image_size)
    return WatchedStep(identity, model, scratch, progress or Silent(), images)


class CountingProgress(Silent):
    """Progress that counts how often it is told something, and stops the run at the last time allowed."""

    def __init__(self, last: int | None = None) -> None:
        self.told = 0
        self.last = last

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:  # noqa: ARG002 - as the engine calls it
        """Count, and stop when it is time.

        Raises:
            StoppedError: it was told so often.
        """
        self.told += 1
        if self.told == self.last:
            raise StoppedError


class WatchedStep(RunningStep):
    """A context that remembers what a step tried to write, and what was wrong with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tried: set[tuple[str, str]] = set()
        self.refused: list[str] = []

    def write(self, component: str, name: str, tensor: torch.Tensor) -> None:
        """Write as the engine does; what it refuses is remembered."""
        self.tried.add((component, name))
        try:
            super().write(component, name, tensor)
        except PluginError as error:
            self.refused.append(error.what)

    @property
    def result(self) -> dict[str, Any]:
        """Everything that a release keeps of the run: bytes of tensors and artifacts, numbers and curves."""
        return {
            **{f"{part}/{name}": tensor_bytes(tensor) for (part, name), tensor in sorted(self.tensors.items())},
            **self.artifacts,
            "numbers": self.numbers,
            "curves": self.curves,
        }
