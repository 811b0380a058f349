"""Requests to batches, and batches to images: generate what is not yet there, one model after the other.

Equal requests are generated once, in a fixed order, so that a batch can be named and found again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Anatomy, Executor, ImageRequest
from publisher.errors import CRASHES, PublisherError
from publisher.evaluate.context import ModelUnderTest, Setting, Unmeasured
from publisher.evaluate.dispatch import dispatch
from publisher.evaluate.requests import one_line
from publisher.model.digest import sha256_json
from publisher.runtime.generate import VERSION, batch_kind, generate
from publisher.runtime.numerics import LIBRARIES, device_name
from publisher.runtime.side_by_side import is_small, one_thread_each, threads_of, workers_for
from publisher.safeguards import attach

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from publisher.safeguards.base import Attachment


Wanted = tuple[ImageRequest, bool]
"""A request, and whether the hardened model generates it with its safeguards attached."""


@dataclass(frozen=True)
class Batch:
    """Requests that are generated together."""

    requests: tuple[ImageRequest, ...]
    """The requests without their concepts, which do not matter to what is generated."""
    private: bool
    """True where it shows persons or unsafe content: never stored on disk."""
    attached: tuple[bool, ...] = (True,)
    """Whether the hardened model generates it with its safeguards attached, with nothing attached, or once each."""


def without_concept(request: ImageRequest) -> ImageRequest:
    """Return the request without its concept: equal ones are one image."""
    return request.model_copy(update={"concept": ""})


def batches(wanted: Iterable[Wanted], private: Collection[str], size: int) -> tuple[Batch, ...]:
    """Group requests into batches, in the order of their first appearance.

    What is generated in several ways is grouped the same in each: where nothing differs, not even the last bit may.

    Args:
        wanted: of all checks; equal images are taken once.
        private: ids of the concepts whose images must not be stored.
        size: of a batch.
    """
    hidden: dict[ImageRequest, bool] = {}
    ways: dict[ImageRequest, set[bool]] = {}
    for request, attached in wanted:
        bare = without_concept(request)
        hidden[bare] = hidden.get(bare, False) or request.concept in private
        ways.setdefault(bare, set()).add(attached)
    groups: dict[tuple[object, ...], list[ImageRequest]] = {}
    for bare, secret in hidden.items():
        groups.setdefault((*batch_kind(bare), secret, *sorted(ways[bare])), []).append(bare)
    return tuple(
        Batch(tuple(part), private=hidden[part[0]], attached=tuple(sorted(ways[part[0]])))
        for group in groups.values()
        for part in _parts(group, size)
    )


def _parts(group: Sequence[ImageRequest], size: int) -> list[Sequence[ImageRequest]]:
    return [group[start : start + size] for start in range(0, len(group), size)]


@dataclass(frozen=True)
class GenerateTask:
    """A few batches for one model: all that an executor has to send."""

    folder: Path
    """Folder of the model."""
    anatomy: Anatomy
    """Parts of the model."""
    device: str
    dtype: str
    workers: int
    """Batches that are generated at the same time, each by one processor thread; 1: one batch by all of them."""
    batches: tuple[tuple[ImageRequest, ...], ...]
    safeguards: Path | None = None
    """Folder with the safeguards to attach; None: the weights generate alone."""

    @property
    def threads(self) -> int:
        """Processor threads that the task keeps busy."""
        return threads_of(self.device, self.workers)


@dataclass(frozen=True)
class Generated:
    """What became of a batch: images, or the reason why there are none."""

    images: torch.Tensor | None
    """``(n, 3, h, w)`` uint8 on the CPU."""
    problem: str = ""


def perform(task: GenerateTask) -> list[Generated]:
    """Generate batches. The model stays loaded for the next task; a crash is an answer, not an exception."""
    from publisher.runtime.pipelines import twin

    try:
        pipeline, _ = opened(task.folder, task.anatomy, task.safeguards, task.device, task.dtype)
    except CRASHES as error:  # whatever the libraries raise, these images are not there
        return [Generated(None, one_line(error))] * len(task.batches)
    if task.workers == 1:
        return [_generate(pipeline, batch) for batch in task.batches]
    return one_thread_each(lambda batch: _generate(twin(pipeline), batch), task.batches, task.workers)


def _is_generated(task: GenerateTask, found: list[Generated]) -> bool:
    return (
        isinstance(found, list) and len(found) == len(task.batches) and all(isinstance(one, Generated) for one in found)
    )


def _generate(pipeline: DiffusionPipeline, batch: tuple[ImageRequest, ...]) -> Generated:
    try:
        return Generated(generate(pipeline, batch))
    except CRASHES as error:  # whatever the libraries raise, these images are not there
        return Generated(None, one_line(error))


def opened(
    folder: Path, anatomy: Anatomy, safeguards: Path | None, device: str, dtype: str
) -> tuple[DiffusionPipeline, tuple[Attachment, ...]]:
    """Load a model, ready to generate, with its safeguards attached. The last one stays loaded, of small ones a few.

    Raises:
        PublisherError: it cannot be loaded, or a safeguard cannot be attached.
    """
    load = _opened_small if device == "cpu" and is_small(anatomy.latents.size) else _opened
    return load(folder, anatomy, safeguards, device, dtype)


def close_models() -> None:
    """Forget all models that are loaded: what lies in their folders may be another one next time."""
    _opened.cache_clear()
    _opened_small.cache_clear()


def _open(
    folder: Path, anatomy: Anatomy, safeguards: Path | None, device: str, dtype: str
) -> tuple[DiffusionPipeline, tuple[Attachment, ...]]:
    import torch

    from publisher.runtime.pipelines import load

    pipeline = load(folder, anatomy, torch.device(device), getattr(torch, dtype))
    attached = attach(pipeline, safeguards) if safeguards else ()
    if safeguards and not attached:
        raise PublisherError("there is no safeguard to attach", where=str(safeguards))
    return pipeline, attached


_opened = lru_cache(maxsize=1)(_open)
_opened_small = lru_cache(maxsize=4)(_open)  # a search goes from the package to its weights, the base and a reference


class ModelImages:
    """The images of one model for a list of batches.

    Args:
        model: the model.
        setting: where it is generated and what is told.
        name: of the model, in words.
    """

    def __init__(self, model: ModelUnderTest, setting: Setting, name: str) -> None:
        self.model = model
        self.name = name
        self.failure = ""
        """Why the executor itself failed; empty: it did not."""
        self._problems: dict[str, str] = {}
        self._setting = setting

    def fill(self, batches: Sequence[Batch], executor: Executor[Any], *, keep: bool = False) -> Iterator[int]:
        """Generate what the store does not have; yields the number of images each time some are there.

        Args:
            batches: to generate.
            executor: where.
            keep: leave the model loaded for what is asked next.

        Raises:
            PublisherError: the store's disk is full.
        """
        missing = []
        for batch in batches:
            if self.look(batch) is None:
                missing.append(batch)
            else:
                yield len(batch.requests)
        setting, workers = self._setting, self.workers
        chunks = [missing[start : start + 2 * workers] for start in range(0, len(missing), 2 * workers)]
        tasks = [
            GenerateTask(
                self.model.folder,
                self.model.anatomy,
                setting.device,
                setting.dtype,
                workers,
                tuple(batch.requests for batch in chunk),
                self.model.safeguards if self.model.attached else None,
            )
            for chunk in chunks
        ]
        waiting = iter(chunks)
        try:
            for generated in dispatch(executor, perform, tasks, _is_generated):
                chunk = next(waiting)
                for batch, result in zip(chunk, generated, strict=True):
                    self._keep(batch, result)
                yield sum(len(batch.requests) for batch in chunk)
        except Unmeasured as error:
            self.failure = str(error)
            for chunk in waiting:
                self._problems |= dict.fromkeys(map(self.key, chunk), str(error))
                yield sum(len(batch.requests) for batch in chunk)
        finally:
            if not keep:
                close_models()

    def look(self, batch: Batch) -> torch.Tensor | None:
        """Return the images of a batch, if they are there."""
        return self._setting.store.get(self.key(batch), len(batch.requests))

    def why(self, batch: Batch) -> str:
        """Return why the images of a batch are not there."""
        return self._problems.get(self.key(batch), "its stored images were lost")

    def key(self, batch: Batch) -> str:
        """Return a sha256 of all that the images of a batch depend on."""
        requests = [request.model_dump(mode="json", exclude={"concept"}) for request in batch.requests]
        return sha256_json({"model": self.model.key, "requests": requests, "machine": self._machine})

    def _keep(self, batch: Batch, generated: Generated) -> None:
        key = self.key(batch)
        if generated.images is None or len(generated.images) != len(batch.requests):
            self._problems[key] = generated.problem or "another number of images was generated"
        else:
            self._setting.store.put(key, generated.images, private=batch.private)

    @cached_property
    def workers(self) -> int:
        """Batches at the same time: a small network leaves most of a second processor thread idle."""
        return workers_for(self.model.anatomy.latents.size, self._setting.device)

    @cached_property
    def _machine(self) -> dict[str, str]:
        return {**machine(self._setting, self.workers), "generation": VERSION}


def machine(setting: Setting, workers: int = 0) -> dict[str, str]:
    """Return what the last bits of a network's output depend on besides the network.

    Args:
        setting: device and dtype.
        workers: pieces of work side by side, of one thread each where there are several; 0: threads do not matter.
    """
    import torch

    libraries = {name: version(name) for name in LIBRARIES}
    threads = (
        {"threads": "" if setting.device == "cuda" else str(1 if workers > 1 else torch.get_num_threads())}
        if workers
        else {}
    )
    return {**libraries, "device": device_name(setting.device), "dtype": setting.dtype, **threads}


def sampler_of(folder: Path) -> str:
    """Return the class of the scheduler that generates, for the evidence; ``"unknown"`` where nobody can tell."""
    path = folder / "scheduler" / "scheduler_config.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["_class_name"])
    except (OSError, ValueError, KeyError):
        return "unknown"
