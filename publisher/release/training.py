"""Training without a release: a manifest's steps, run by the engine, and nothing verified."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher.api import StepRecord
from publisher.engine.cache import StepResult
from publisher.engine.device import require
from publisher.engine.progress import Progress
from publisher.engine.run import Hardened, harden
from publisher.errors import PublisherError, UsageError
from publisher.model.files import atomic_folder, json_bytes, write_atomic
from publisher.model.lock import locked
from publisher.model.state import State
from publisher.release.places import require_writable, told
from publisher.release.prepare import PreparedRelease, prepare

SUMMARY = "training.json"


@dataclass(frozen=True)
class TrainingRun:
    """What a training run left."""

    files: tuple[Path, ...]
    """Weights that the steps added, and what stands beside them."""
    records: tuple[StepRecord, ...]
    """Records of these steps."""
    cached: tuple[str, ...]
    """Ids of steps that were there already."""
    seconds: Mapping[str, float]
    """Step id -> wall seconds."""


def train(path: Path, use: str, out: Path, work: Path, progress: Progress) -> TrainingRun:
    """Run a manifest's steps up to the last one of a kind, and write the weights that these steps added to ``out``.

    Nothing is verified, packaged or signed. A run that was stopped goes on with the same call; a release with the same
    work folder takes the finished steps from it.

    Args:
        path: of the manifest.
        use: name of the kind, as a manifest gives it.
        out: a new folder: the weights, and ``training.json`` with numbers and loss curves. With several such steps,
            a folder for each.
        work: finished steps stay here.
        progress: is told how far it is.

    Raises:
        UsageError: the manifest has no such step, or ``out`` exists.
        PublisherError: a step failed; ``out`` is not there.
    """
    if os.path.lexists(out):
        raise UsageError("is there already", where=str(out), hint="Give another folder with --out.")
    require_writable(out, work)
    with told(), locked(work):
        prepared = prepare(path, work, fetch=True)
        steps = [index for index, step in enumerate(prepared.steps) if step.identity.name == use]
        if not steps:
            raise UsageError(f"the manifest has no step {use!r}, so there is nothing to train", where=str(path))
        require(prepared.device)
        hardened = _run(prepared, steps[-1] + 1, work, progress)
        results = [hardened.results[index] for index in steps]
        with atomic_folder(out) as folder:
            names = [name for result in results for name in _write(result, folder, alone=len(results) == 1)]
    records = tuple(result.record for result in results)
    return TrainingRun(tuple(out / name for name in names), records, hardened.cached, hardened.seconds)


def _run(prepared: PreparedRelease, count: int, work: Path, progress: Progress) -> Hardened:
    if prepared.model is None:
        raise PublisherError("the source gave no model", where=prepared.resolved.model)

    def notify(hook: str, event: Any) -> None:
        for problem in prepared.registry.notify(hook, event):
            progress.warn(problem)

    base = State(prepared.model.folder, (), work / "states")
    return harden(base, prepared.steps[:count], work, progress, notify)


def _write(result: StepResult, folder: Path, *, alone: bool) -> list[str]:
    """Write a step's weights and its summary, and return their names inside ``folder``."""
    added = {name: data for name, data in result.artifacts.items() if name.endswith(".safetensors")}
    files = {name.rpartition("/")[2]: data for name, data in added.items()}
    files[SUMMARY] = json_bytes(summary(result.record))
    place = "" if alone else f"{result.record.id}/"
    for name, data in files.items():
        write_atomic(folder / place / name, data)
    return [place + name for name in sorted(files)]


def summary(record: StepRecord) -> dict[str, Any]:
    """Return what the run says of itself: parameters, numbers, loss curves, warnings, and that nothing was verified."""
    data = record.as_json()
    wanted = ("id", "version", "input", "params", "inputs", "numbers", "curves", "warnings")
    return {"verified": False, **{key: data[key] for key in wanted}}
