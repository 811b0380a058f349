"""Train by slices: every stage a file, every file known by what it depends on, and at the end the signed ledger.

A stage that is finished is kept as long as nothing that it saw has changed: another slice, whatever becomes of it, is
no reason to train it again. That is the promise of the ledger, and the tests hold the trainer to it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Model
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.process import require_trainable
from publisher.api.slices import (
    LEDGER,
    BaseWeights,
    DataSlice,
    LayerUpdate,
    Ledger,
    Stage,
    chain,
    read_stage,
    update_bytes,
    weights_of,
)
from publisher.api.slices.ledger import recipe_digest
from publisher.errors import ModelError, UsageError
from publisher.model.digest import sha256_json
from publisher.model.files import write_atomic
from publisher.package.dsse import Signer, canonical
from publisher.slicing.material import REPLAY, Material, saw
from publisher.slicing.recipe import SliceTraining, TrainingFile, shares
from publisher.slicing.samples import enter_slice, read_body
from publisher.slicing.stages import StagePlace, groups_of, layers_of, orders_of, stages_of

if TYPE_CHECKING:
    from publisher.slicing.training import BatchPart

Progress = Callable[[str, int, int], None]
"""Function that is told what is done, how much of it, of how much."""
VERSION = "1"
"""Raised when the same training gives other bytes."""


@dataclass(frozen=True)
class Workplace:
    """Where a training by slices writes, and on what it computes."""

    out: Path
    """Folder of ledger and stages."""
    private: Path
    """Folder that stays with the publisher: secrets, receipts, checkpoints."""
    device: str
    """Kind of device."""
    machine: Mapping[str, str]
    """Versions and device, for the ledger."""


@dataclass(frozen=True)
class Finished:
    """What a training by slices has made."""

    ledger: Ledger
    """The ledger, as it was signed."""
    trained: tuple[str, ...]
    """Ids of the stages that were trained in this run; others were there."""


def train(file: TrainingFile, model: Model, place: Workplace, signer: Signer, progress: Progress) -> Finished:
    """Train all stages and sign the ledger. What an earlier run finished is not trained again.

    Args:
        file: what is to be trained.
        model: the base model.
        place: folders and device.
        signer: of the ledger.
        progress: is told of each step.

    Raises:
        UsageError: a slice is empty or shares a picture with another one; the folder is of another base model.
        ModelError: the model cannot be trained.
        PublisherError: a training diverged, or a file cannot be written.
    """
    require_trainable(model, images=True)
    run = _Run(file.training, model, place, progress)
    run.require_base()
    bodies = [read_body(entry, file.path.parent) for entry in file.training.data]
    run.material.add_slices(bodies)
    if file.training.replay:
        run.material.add_replay(file.training.replay, file.training.recipe.seed, partial(progress, "replay"))
    for one in stages_of(file.training):
        run.finish(one)
    ledger = run.ledger([enter_slice(body, place.private) for body in bodies])
    if problem := next(ledger.problems(), ""):
        raise ModelError(problem, where=str(place.out / LEDGER))
    write_atomic(place.out / LEDGER, signer.bundle(canonical(ledger.statement())))
    return Finished(ledger, tuple(run.trained))


@dataclass(eq=False)
class _Run:
    training: SliceTraining
    model: Model
    place: Workplace
    progress: Progress
    stages: dict[str, Stage] = field(default_factory=dict)
    """Id -> stage that is finished."""
    trained: list[str] = field(default_factory=list)
    """Ids of the stages that this run has trained."""

    @cached_property
    def material(self) -> Material:
        """What stages see."""
        return Material(self.model, self.place.device)

    @cached_property
    def base(self) -> BaseWeights:
        """The base model, for the ledger: every component with weights, as all of them take part in a training."""
        names = [name for name in self.model.components if self.model.tensors(name)]
        digests = {name: weights_of(self.model, name) for name in names}
        return BaseWeights(component=self.model.anatomy.denoiser, weights=digests)

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names of the adapted layers, group by group."""
        layers = layers_of(self.model, convolutions=self.training.recipe.convolutions)
        return groups_of(self.training, self.model, layers)

    @cached_property
    def recipe(self) -> dict[str, str | int]:
        """What every stage was trained with, for the ledger."""
        given, replay = self.training.recipe, self.training.replay
        numbers = {name: value for name, value in given.as_json().items() if isinstance(value, int)}
        texts = {name: repr(value) for name, value in given.as_json().items() if isinstance(value, float)}
        more = {"optimizer": "adamw", "precision": "float32", "replay": repr(replay.share) if replay else "0"}
        return {**{name: int(value) for name, value in numbers.items()}, **texts, **more}

    def require_base(self) -> None:
        """Refuse a folder whose stages were trained on another model.

        Raises:
            UsageError: they were.
        """
        path = self.place.out / LEDGER
        if path.is_file() and Ledger.read(path.read_bytes(), str(path)).base != self.base:
            hint = "Stages fit the base model that they were trained on, and no other: give another --out."
            raise UsageError("is of another base model", where=str(path), hint=hint)

    def finish(self, stage: StagePlace) -> None:
        """Take a finished stage from its file, or train it now."""
        parents = tuple(self.stages[name].sha256 for name in stage.before)
        key = self._key(stage, parents)
        file = self.place.out / "stages" / f"{stage.id}.safetensors"
        record = self.place.private / "stages" / f"{stage.id}.json"
        said = _said(record, key, file)
        if said is None:
            data = update_bytes(self._train(stage, key))
            said = {"key": key, "sha256": hashlib.sha256(data).hexdigest(), "machine": dict(self.place.machine)}
            write_atomic(file, data)
            write_atomic(record, json.dumps(said).encode())
            self._checkpoints(stage, key).clear()
            self.trained.append(stage.id)
        self.stages[stage.id] = Stage(
            id=stage.id,
            order=stage.order,
            position=stage.position,
            saw=stage.saw,
            parents=parents,
            group=stage.group,
            rank=self.training.recipe.rank,
            file=f"stages/{file.name}",
            sha256=said["sha256"],
            weights_in=chain(self.base, parents),
            recipe=recipe_digest(self.recipe),
            steps=self.training.recipe.steps,
            seed=self.training.recipe.seed,
            machine=said["machine"],
        )

    def _key(self, stage: StagePlace, parents: Sequence[str]) -> str:
        """Return the digest of all that a stage depends on: what it saw, and nothing of any other slice."""
        data = saw(self.material.digests, (stage.new, *stage.earlier))
        base = [self.base.component, dict(self.base.weights)]
        layers = list(self.groups[stage.group])
        return sha256_json([VERSION, stage.id, base, self.recipe, data, list(parents), layers])

    def _checkpoints(self, stage: StagePlace, key: str) -> Checkpoints:
        return Checkpoints(self.place.private / "work", stage.id, sha256_json([key, dict(self.place.machine)]))

    def _train(self, stage: StagePlace, key: str) -> dict[str, LayerUpdate]:
        from publisher.slicing.training import StageJob, train_stage

        tensors = self.model.tensors(self.base.component)
        before: dict[str, list[LayerUpdate]] = {}
        for one in (self.stages[name] for name in stage.before):
            parts = read_stage(self.place.out / one.file, one, self.groups[one.group], tensors)
            for layer, update in parts.items():
                before.setdefault(layer, []).append(update)
        recipe, layers = self.training.recipe, self.groups[stage.group]
        job = StageJob(stage.id, self.model, self.place.device, before, layers, self._pools(stage), recipe)
        return train_stage(job, self._checkpoints(stage, key), partial(self.progress, f"stage {stage.id}"))

    def _pools(self, stage: StagePlace) -> tuple[BatchPart, ...]:
        """Return what each batch of a stage is taken from: its newest slice, the ones before it, replay."""
        import torch

        from publisher.slicing.training import BatchPart

        new, rest, replay = shares(self.training, first=not stage.earlier)
        parts = [((stage.new,), new), (stage.earlier, rest), ((REPLAY,) if self.training.replay else (), replay)]
        return tuple(
            BatchPart(
                torch.cat([self.material.latents(name) for name in names]),
                tuple(text for name in names for text in self.material.captions[name]),
                share,
            )
            for names, share in parts
            if names
        )

    def ledger(self, slices: Sequence[DataSlice]) -> Ledger:
        """Return the ledger of all stages."""
        return Ledger(
            base=self.base,
            mode=self.training.mode,
            groups=self.groups,
            slices=tuple(slices),
            replay=self.material.replay,
            orders=orders_of(self.training),
            stages=tuple(self.stages.values()),
            recipes={recipe_digest(self.recipe): self.recipe},
        )


def _said(record: Path, key: str, file: Path) -> dict[str, Any] | None:
    """Return what is known of a finished stage; None: it is not there, or something that it depends on has changed."""
    try:
        found: dict[str, Any] = json.loads(record.read_bytes())
        same = found["key"] == key and found["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        return {"sha256": found["sha256"], "machine": dict(found["machine"])} if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
