"""Train by slices: every stage a file, every file known by what it depends on, and at the end the signed ledger.

A stage that is finished is kept as long as nothing that it saw has changed: another slice, whatever becomes of it, is
no reason to train it again. That is the promise of the ledger, and the tests hold the trainer to it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
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
    SumRule,
    chain,
    read_stage,
    update_bytes,
    weights_of,
)
from publisher.api.slices.ledger import recipe_digest
from publisher.errors import ModelError, PublisherError, UsageError
from publisher.model.digest import sha256_json
from publisher.model.files import cannot_write, write_atomic
from publisher.model.lock import training_folders
from publisher.package.dsse import Signer, canonical
from publisher.slicing.material import REPLAY, Material, saw
from publisher.slicing.recipe import SliceTraining, TrainingFile, shares
from publisher.slicing.samples import enter_slice, read_body, require_gone
from publisher.slicing.stages import StagePlace, groups_of, layers_of, orders_of, stages_of

if TYPE_CHECKING:
    from publisher.slicing.training import BatchPart

Progress = Callable[[str, int, int], None]
"""Function that is told what is done, how much of it, of how much."""
WORK = "work"
"""Folder of checkpoints in the private folder, each stage's in a folder of its own."""
VERSION = "2"
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
    removed: tuple[str, ...] = ()
    """Names of the stages whose files were removed, as no stage of the ledger is in them."""
    repeated: tuple[str, ...] = ()
    """Ids of the finished stages that were trained again, to equal bytes."""


def train(
    file: TrainingFile,
    model: Model,
    place: Workplace,
    signer: Signer,
    progress: Progress,
    *,
    again: Collection[str] = (),
) -> Finished:
    """Train all stages and sign the ledger. What an earlier run finished is not trained again.

    Args:
        file: what is to be trained.
        model: the base model.
        place: folders and device.
        signer: of the ledger.
        progress: is told of each step.
        again: ids of stages to train again although they are finished, and to compare.

    Raises:
        BusyError: another training is using one of the folders.
        UsageError: a slice is empty or shares a picture with another one; the folder is of another base model, or was
            trained without a slice that is back, or never had one that is withdrawn; a training diverged.
        ModelError: the model cannot be trained.
        PublisherError: a training gave other bytes the second time, or a file cannot be written.
    """
    require_trainable(model, images=True)
    known = [stage.id for stage in stages_of(file.training)]
    if unknown := sorted({*again} - {*known}):
        raise UsageError(f"there is no stage {unknown[0]!r}", where="--again", hint=f"There are: {', '.join(known)}.")
    with training_folders(place.out, place.private):
        return _train(file, _Run(file.training, model, place, progress, frozenset(again)), signer)


def _train(file: TrainingFile, run: _Run, signer: Signer) -> Finished:
    place, progress = run.place, run.progress
    earlier = run.earlier()
    bodies = [read_body(entry, file.path.parent) for entry in file.training.live]
    require_gone(bodies, gone_from(earlier, [body.entry.id for body in bodies]), place.private)
    run.material.add_slices(bodies)
    if file.training.replay:
        seed, kept = file.training.recipe.seed, place.private / "replay"
        run.material.add_replay(file.training.replay, seed, kept, partial(progress, "replay"))
    for one in stages_of(file.training):
        run.finish(one)
    ledger = after(earlier, run.ledger([enter_slice(body, place.private) for body in bodies]))
    if problem := next(ledger.problems(), ""):
        raise ModelError(problem, where=str(place.out / LEDGER))
    if earlier and earlier != ledger:
        write_atomic(place.private / "ledgers" / f"{earlier.digest}.json", (place.out / LEDGER).read_bytes())
    write_atomic(place.out / LEDGER, signer.bundle(canonical(ledger.statement())))
    removed = _remove_others(place, ledger)
    return Finished(ledger, tuple(run.trained), removed, tuple(run.repeated))


def after(earlier: Ledger | None, ledger: Ledger) -> Ledger:
    """Return the ledger as the successor of the one that it replaces; one that says the same has the same predecessor.

    Args:
        earlier: the ledger that the folder has; None: it has none.
        ledger: of what is trained now; the slices that it lacks were withdrawn.
    """
    if earlier is None:
        return ledger
    gone = tuple(gone_from(earlier, [one.id for one in ledger.slices]).values())
    same = ledger.model_copy(update={"withdrawn": gone, "previous": earlier.previous})
    return same if same == earlier else same.model_copy(update={"previous": earlier.digest})


def gone_from(earlier: Ledger | None, live: Collection[str]) -> dict[str, DataSlice]:
    """Return the slices that a ledger has or had, sorted by id, without those that are trained now."""
    known = {one.id: one for one in (*earlier.withdrawn, *earlier.slices)} if earlier else {}
    return {name: known[name] for name in sorted(known.keys() - {*live})}


def _remove_others(place: Workplace, ledger: Ledger) -> tuple[str, ...]:
    """Remove the stages that the ledger does not have, such as those that saw a withdrawn slice; return their names.

    What is noted of them goes too, and every checkpoint: all stages of the ledger are finished.

    Raises:
        PublisherError: something cannot be removed.
    """
    known = {stage.id for stage in ledger.stages}
    others = sorted(path for path in (place.out / "stages").glob("*.safetensors") if path.stem not in known)
    notes = [path for path in (place.private / "stages").glob("*.json") if path.stem not in known]
    try:
        for path in (*others, *notes):
            path.unlink()
        if (place.private / WORK).exists():
            shutil.rmtree(place.private / WORK)
    except OSError as error:
        raise cannot_write(Path(error.filename or place.private), error) from error
    return tuple(path.stem for path in others)


@dataclass(eq=False)
class _Run:
    training: SliceTraining
    model: Model
    place: Workplace
    progress: Progress
    again: frozenset[str] = frozenset()
    """Ids of finished stages that are trained again."""
    stages: dict[str, Stage] = field(default_factory=dict)
    """Id -> stage that is finished."""
    trained: list[str] = field(default_factory=list)
    """Ids of the stages that this run has trained."""
    repeated: list[str] = field(default_factory=list)
    """Ids of the finished stages that this run has trained again."""

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
        held = {"replay": repr(replay.share), "replay_weight": repr(replay.weight)} if replay else {"replay": "0"}
        more = {"optimizer": "adamw", "precision": "float32", **held}
        return {**{name: int(value) for name, value in numbers.items()}, **texts, **more}

    def earlier(self) -> Ledger | None:
        """Return the ledger that the folder has, where this training may follow it; None: it has none.

        Raises:
            UsageError: it is of another base model, has lost a slice that is back, or never had one that is withdrawn.
        """
        path = self.place.out / LEDGER
        found = Ledger.read(path.read_bytes(), str(path)) if path.is_file() else None
        if found and found.base != self.base:
            hint = "Stages fit the base model that they were trained on, and no other: give another --out."
            raise UsageError("is of another base model", where=str(path), hint=hint)
        gone = {one.id for one in found.withdrawn} if found else set()
        if back := sorted(gone & {entry.id for entry in self.training.live}):
            hint = "Name it under 'withdrawn', or give another --out."
            raise UsageError(f"says that {back[0]} was withdrawn, and its data is back", where=str(path), hint=hint)
        known = gone | {one.id for one in found.slices} if found else gone
        if never := sorted({*self.training.withdrawn} - known):
            hint = "Leave it out of 'data' and 'withdrawn': nothing here was computed from it."
            raise UsageError(f"{never[0]} is withdrawn, and no ledger here has it", where=str(path), hint=hint)
        live = [entry.id for entry in self.training.live]
        for entry in self.training.live:
            if there := sorted({*entry.rest_of} - gone_from(found, live).keys()):
                what = f"{entry.id} is said to be the rest of {there[0]}, which no ledger here lists as withdrawn"
                raise UsageError(what, where=str(path), hint="Name a slice that was withdrawn, or none.")
        return found

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
        elif stage.id in self.again:
            self._repeat(stage, key, said["sha256"])
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

    def _repeat(self, stage: StagePlace, key: str, sha256: str) -> None:
        found = hashlib.sha256(update_bytes(self._train(stage, key))).hexdigest()
        self._checkpoints(stage, key).clear()
        if found != sha256:
            raise PublisherError(
                "gives other bytes when it is trained again: it was computed from other data, or on another machine",
                where=f"stage {stage.id}",
                hint="Equal bytes need the versions and the kind of device that the ledger has for the stage.",
            )
        self.repeated.append(stage.id)

    def _key(self, stage: StagePlace, parents: Sequence[str]) -> str:
        """Return the digest of all that a stage depends on: what it saw, and nothing of any other slice."""
        data = saw(self.material.digests, (stage.new, *stage.earlier))
        base = [self.base.component, dict(self.base.weights)]
        layers = list(self.groups[stage.group])
        return sha256_json([VERSION, stage.id, base, self.recipe, data, list(parents), layers])

    def _checkpoints(self, stage: StagePlace, key: str) -> Checkpoints:
        return Checkpoints(self.place.private / WORK / stage.id, "stage", sha256_json([key, dict(self.place.machine)]))

    def _train(self, stage: StagePlace, key: str) -> dict[str, LayerUpdate]:
        from publisher.slicing.training import StageJob, train_stage

        tensors = self.model.tensors(self.base.component)
        before: dict[str, list[LayerUpdate]] = {}
        for one in (self.stages[name] for name in stage.before):
            parts = read_stage(self.place.out / one.file, one, self.groups[one.group], tensors)
            for layer, update in parts.items():
                before.setdefault(layer, []).append(update)
        replay, (new, earlier, held) = self.training.replay, shares(self.training, first=not stage.earlier)
        learned = [self._part((stage.new,), new), *([self._part(stage.earlier, earlier)] if stage.earlier else [])]
        job = StageJob(
            id=stage.id,
            model=self.model,
            device=self.place.device,
            before=before,
            layers=self.groups[stage.group],
            learned=tuple(learned),
            replay=self._part((REPLAY,), held) if replay else None,
            weight=replay.weight if replay else 0.0,
            recipe=self.training.recipe,
        )
        return train_stage(job, self._checkpoints(stage, key), partial(self.progress, f"stage {stage.id}"))

    def _part(self, names: Sequence[str], share: int) -> BatchPart:
        """Return the part of each batch that is taken from some slices, or from replay."""
        import torch

        from publisher.slicing.training import BatchPart

        latents = torch.cat([self.material.latents(name) for name in names])
        return BatchPart(latents, tuple(text for name in names for text in self.material.captions[name]), share)

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
            composition=SumRule(),
        )


def _said(record: Path, key: str, file: Path) -> dict[str, Any] | None:
    """Return what is known of a finished stage; None: it is not there, or something that it depends on has changed."""
    try:
        found: dict[str, Any] = json.loads(record.read_bytes())
        same = found["key"] == key and found["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        return {"sha256": found["sha256"], "machine": dict(found["machine"])} if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
