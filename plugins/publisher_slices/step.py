"""The step ``slices``: the base model's weights with the stages that may stay, and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from publisher.api import Claim, ModelInfo, Scope, Step, StepContext, StepPlan, UsageError
from publisher.api.slices import LEDGER, Composition, Ledger, Remains, read_updates, recompose, weights_of
from publisher_slices.claims import slice_claims
from publisher_slices.params import SliceParams

FOLDER = "slices"
"""Folder of the package, under ``release/``, for ledger and stages."""
DELETED = "deleted.json"
"""File beside them that says what was withdrawn and what stays."""


class ComposeSlices(Step[SliceParams]):
    """Exact deletion by slices (S3T): every stage that saw a withdrawn slice is left out, nothing is trained."""

    name = "slices"
    version = "1"
    summary = "S3T: withdrawn data is out of the weights exactly, by leaving out every stage that saw it"

    def inputs(self, params: SliceParams) -> Sequence[str]:
        """Return the ledger's folder."""
        return (params.ledger,)

    def claims(self, params: SliceParams, scope: Scope) -> Sequence[Claim]:
        """Promise that nothing of what was withdrawn is in the weights, and what that shows in images."""
        return slice_claims(params, scope)

    def plan(self, params: SliceParams, scope: Scope, model: ModelInfo) -> StepPlan:  # noqa: ARG002
        """Say which stages stay, and what goes with the withdrawn slices.

        Raises:
            ModelError: the ledger contradicts itself or a stage's file is not what it says.
            UsageError: it is of another base model, there is no such slice, or nothing is left.
        """
        ledger, found = self._chosen(params, model)
        layers = sorted({layer for stage in found.stages for layer in ledger.groups[stage.group]})
        ending = [f"{FOLDER}/{name}" for name in (LEDGER, DELETED)]
        files = [f"{FOLDER}/{Path(stage.file).name}" for stage in found.stages]
        names = [f"{layer}.weight" for layer in layers]
        return StepPlan({ledger.base.component: names}, (*ending, *files), notes=_notes(ledger, found, params))

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
                hint = "Put slices first: the stages were trained on the base model, and a sum is exact on it alone."
                raise UsageError(f"an earlier step changed {component}/{name}", hint=hint)
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
        path = self.files[params.ledger] / LEDGER
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from error
        ledger = Ledger.read(data, str(path))
        require_base(ledger, model, str(path))
        if unknown := sorted(set(params.words) - {one.id for one in (*ledger.slices, *ledger.withdrawn)}):
            raise UsageError(f"there is no slice {unknown[0]!r}", where="words")
        found = ledger.compose(params.deleted)
        require_files(ledger, found, self.files[params.ledger])
        return ledger, found


def require_base(ledger: Ledger, model: ModelInfo, where: str) -> None:
    """Make sure that the stages were trained on this model.

    Raises:
        UsageError: they were trained on another one.
    """
    for component, digest in ledger.base.weights.items():
        if component not in model.components or weights_of(model, component) != digest:
            hint = "Stages fit the base model that they were trained on, and no other."
            raise UsageError(f"is of another base model: its {component} has other weights", where=where, hint=hint)


def require_files(ledger: Ledger, found: Composition, folder: Path) -> None:
    """Make sure that the stages that stay are there.

    Raises:
        UsageError: one is missing.
    """
    for stage in found.stages:
        if not (folder / stage.file).is_file():
            hint = f"Train it again: it saw {', '.join(stage.saw)}."
            raise UsageError(f"stage {stage.id} is missing", where=str(folder / stage.file), hint=hint)
    if missing := [stage.group for stage in found.stages if stage.group >= len(ledger.groups)]:
        raise UsageError(f"there is no group {missing[0]}", where=str(folder))


def _notes(ledger: Ledger, found: Composition, params: SliceParams) -> tuple[str, ...]:
    order = f"order {found.order}, " if found.order else ""
    names = ", ".join(stage.id for stage in found.stages)
    count = f"{len(found.live)} of {len(ledger.slices)} slices stay"
    notes = [f"{order}stages {names}: {count}; nothing is trained, and the ledger's signature is not checked here"]
    if found.lost:
        notes.append(f"{', '.join(found.lost)} go with {', '.join(params.deleted)}: every later stage saw both")
    if ledger.withdrawn:
        names = ", ".join(one.id for one in ledger.withdrawn)
        notes.append(f"the ledger replaces {(ledger.previous or '')[:12]}, and no stage of it saw {names}")
    return tuple(notes)
