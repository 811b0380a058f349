"""The step ``slices``: the base model's weights with the stages that may stay, and with nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from publisher.api import Claim, ModelError, ModelInfo, Scope, SignedInput, Step, StepContext, StepPlan, UsageError
from publisher.api.slices import (
    DELETED,
    FOLDER,
    LEDGER,
    Composition,
    Ledger,
    Remains,
    read_updates,
    recompose,
    require_fit,
    weights_of,
)
from publisher_slices.claims import slice_claims
from publisher_slices.params import SliceParams

ON_BASE = "stages were trained on the base model's own weights, and their sum is exact on these alone"
NOTHING_ELSE = "it promises that nothing but its stages is in the weights, unless its parameters say 'last: false'"


class ComposeSlices(Step[SliceParams]):
    """Exact deletion by slices (S3T): every stage that saw a withdrawn slice is left out, nothing is trained."""

    name = "slices"
    version = "1"
    summary = "S3T: withdrawn data is out of the weights exactly, by leaving out every stage that saw it"

    def inputs(self, params: SliceParams) -> Sequence[str]:
        """Return the ledger's folder, and the key that it must be signed with."""
        return (params.ledger, params.key) if params.key else (params.ledger,)

    def signed(self, params: SliceParams) -> Sequence[SignedInput]:
        """Return the ledger, where the manifest says by whom."""
        return (SignedInput(params.ledger, LEDGER, params.key),) if params.key else ()

    def claims(self, params: SliceParams, scope: Scope) -> Sequence[Claim]:
        """Promise that nothing of what was withdrawn is in the weights, and what that shows in images.

        Raises:
            ModelError: the ledger contradicts itself.
            UsageError: it cannot be read, there is no such slice, or nothing is left.
        """
        here = params.ledger in self.files
        return slice_claims(params, scope, self._ledger(params).compose(params.deleted).lost if here else ())

    def plan(self, params: SliceParams, scope: Scope, model: ModelInfo) -> StepPlan:
        """Say which stages stay, and what goes with the withdrawn slices.

        Raises:
            ModelError: the ledger contradicts itself, or a stage's file is not what it says or does not fit the model.
            UsageError: it is of another base model, there is no such slice, nothing is left, or ``words`` asks for what
                cannot be.
        """
        ledger, found = self._chosen(params, model)
        layers = sorted({layer for stage in found.stages for layer in ledger.groups[stage.group]})
        ending = [f"{FOLDER}/{name}" for name in (LEDGER, DELETED)]
        files = [f"{FOLDER}/{Path(stage.file).name}" for stage in found.stages]
        names = [f"{layer}.weight" for layer in layers]
        return StepPlan(
            {ledger.base.component: names},
            (*ending, *files),
            notes=_notes(ledger, found, params, scope),
            first=ON_BASE,
            last=NOTHING_ELSE if params.last else "",
        )

    def run(self, params: SliceParams, ctx: StepContext) -> None:
        """Compose, and put ledger and stages into the package.

        Raises:
            ModelError: a stage's file is missing or changed.
            UsageError: another step ran before this one.
        """
        import torch
        from safetensors import safe_open

        ledger, found = self._chosen(params, ctx.model)
        folder, component = self.files[params.ledger], ledger.base.component
        tensors = ctx.model.tensors(component)
        updates = read_updates(folder, ledger, found.stages, tensors)
        for done, (layer, added) in enumerate(sorted(updates.items())):
            name = f"{layer}.weight"
            path = ctx.model.base_files(component).parent / tensors[name].file
            with safe_open(path, framework="pt") as file:
                base = file.get_tensor(name)
            if not torch.equal(base, ctx.model.read(component, name)):
                raise UsageError(f"an earlier step changed {component}/{name}", hint=f"Put slices first: {ON_BASE}.")
            ctx.write(component, name, recompose(base, added))
            ctx.progress(done + 1, len(updates), "composing layers")
        ctx.artifact(f"{FOLDER}/{LEDGER}", (folder / LEDGER).read_bytes())
        for stage in found.stages:
            ctx.artifact(f"{FOLDER}/{Path(stage.file).name}", (folder / stage.file).read_bytes())
        said = Remains(deleted=tuple(sorted(params.deleted)), stages=tuple(stage.id for stage in found.stages))
        ctx.artifact(f"{FOLDER}/{DELETED}", json.dumps(said.as_json(), sort_keys=True, separators=(",", ":")).encode())
        ctx.record("stages that stay", len(found.stages))
        ctx.record("slices that stay", len(found.live))
        ctx.record("slices lost with the withdrawn ones", len(found.lost))

    def _chosen(self, params: SliceParams, model: ModelInfo) -> tuple[Ledger, Composition]:
        folder, ledger = self.files[params.ledger], self._ledger(params)
        require_base(ledger, model, str(folder / LEDGER))
        found = ledger.compose(params.deleted)
        require_words(params, ledger, found)
        require_files(found, folder)
        tensors = model.tensors(ledger.base.component)
        for stage in found.stages:
            require_fit(folder / stage.file, stage, ledger.groups[stage.group], tensors)
        return ledger, found

    def _ledger(self, params: SliceParams) -> Ledger:
        path = self.files[params.ledger] / LEDGER
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
        return Ledger.read(data, str(path))


def require_base(ledger: Ledger, model: ModelInfo, where: str) -> None:
    """Make sure that the stages were trained on this model.

    Raises:
        UsageError: they were trained on another one.
    """
    for component, digest in ledger.base.weights.items():
        if component not in model.components or weights_of(model, component) != digest:
            hint = "Stages fit the base model that they were trained on, and no other."
            raise UsageError(f"is of another base model: its {component} has other weights", where=where, hint=hint)


def require_words(params: SliceParams, ledger: Ledger, found: Composition) -> None:
    """Refuse words that promise what is known to be impossible.

    Raises:
        UsageError: there is no such slice; it was withdrawn and ``deleted`` does not say so; or one concept is of a
            slice that goes and of one that stays.
    """
    gone = {one.id for one in ledger.withdrawn}
    if unknown := sorted(set(params.words) - {one.id for one in ledger.slices} - gone):
        raise UsageError(f"there is no slice {unknown[0]!r}", where="words")
    if silent := sorted(set(params.words) & gone - set(params.deleted)):
        hint = f"Name {silent[0]} under 'deleted' too: its words are then tested as those of a withdrawn slice."
        raise UsageError(
            f"the ledger says that {silent[0]} was withdrawn, so it does not stay", where="words", hint=hint
        )
    asked = {concept: name for name, concept in params.words.items() if name in params.deleted}
    for name, concept in params.words.items():
        if name in found.live and concept in asked:
            what = f"{concept!r} asks for {asked[concept]}, which was withdrawn, and for {name}, which stays"
            hint = "It cannot be gone and generated: give each slice a concept of its own, or name one slice alone."
            raise UsageError(what, where="words", hint=hint)


def require_files(found: Composition, folder: Path) -> None:
    """Make sure that the stages that stay are there, and are what the ledger says.

    Raises:
        ModelError: one is another file.
        UsageError: one is missing, or cannot be read.
    """
    for stage in found.stages:
        path, hint = folder / stage.file, f"Take it from a copy, or train it again: it saw {', '.join(stage.saw)}."
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UsageError(
                f"stage {stage.id} cannot be read: {error.strerror}", where=str(path), hint=hint
            ) from error
        if digest != stage.sha256:
            raise ModelError(f"stage {stage.id} is not the file that the ledger names", where=str(path), hint=hint)


def _notes(ledger: Ledger, found: Composition, params: SliceParams, scope: Scope) -> tuple[str, ...]:
    order = f"order {found.order}, " if found.order else ""
    names = ", ".join(stage.id for stage in found.stages)
    count = f"{len(found.live)} of {len(ledger.slices)} slices stay"
    notes = [f"{order}stages {names}: {count}; nothing is trained"]
    if not params.key:
        notes.append("the ledger's signature is not checked: name the trainer's public key under 'key'")
    if found.lost:
        notes.append(f"{', '.join(found.lost)} go with {', '.join(params.deleted)}: every later stage saw both")
    if silent := [name for name in params.words if name in found.lost]:
        notes.append(f"nothing is promised of the words of {', '.join(silent)}, as no stage that stays saw it")
    if named := [one.name for one in scope.keep if one.id in params.words.values()]:
        notes.append(
            f"{', '.join(named)}: not among what stays as in the base model, since 'words' names a slice for it"
        )
    if ledger.withdrawn:
        names = ", ".join(one.id for one in ledger.withdrawn)
        notes.append(f"the ledger replaces {(ledger.previous or '')[:12]}, and no stage of it saw {names}")
    return tuple(notes)
