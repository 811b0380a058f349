"""The step ``apply``: whole tensors take the base model's place, LoRAs are added to what is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import Claim, Credit, ModelError, ModelInfo, Scope, Step, StepContext, StepPlan, UsageError
from publisher.api.header import read_spans
from publisher_apply.adapters import LoraChange
from publisher_apply.claims import MADE_ELSEWHERE, apply_claims
from publisher_apply.comparing import FLOATS, Slice, compare
from publisher_apply.params import ApplyParams
from publisher_apply.sources import Source, read_source

if TYPE_CHECKING:
    from torch import Tensor

Place = tuple[str, str]
"""Component and name of a tensor of the model."""
SHOWN = 3
"""Differences that one sentence of the plan lists."""


@dataclass(frozen=True)
class Change:
    """All that ``from`` says of one tensor, in its order."""

    whole: Slice | None
    """What takes the base model's place; None: it stays, and only LoRAs are added."""
    added: tuple[LoraChange, ...]


@dataclass(frozen=True)
class Found:
    """Everything that ``from`` changes."""

    changes: Mapping[Place, Change]
    notes: tuple[str, ...]


class Apply(Step[ApplyParams]):
    """ForeignWeights that were made elsewhere, by any method, put onto the base model: their effect is tested here."""

    name = "apply"
    version = "1"
    summary = "weights that were made elsewhere, put onto the base model and tested like any other hardening"

    def __init__(self) -> None:
        self._found: dict[object, Found] = {}

    def inputs(self, params: ApplyParams) -> Sequence[str]:
        """Return the paths under ``from``."""
        return tuple(dict.fromkeys(entry.path for entry in params.weights))

    def credits(self, params: ApplyParams) -> Sequence[Credit]:
        """Return ``source``, where it says something."""
        return (params.source,) if params.source.sentence() else ()

    def claims(self, params: ApplyParams, scope: Scope) -> Sequence[Claim]:  # noqa: ARG002 - the same for all weights
        """Promise what an eraser promises: not from plain prompts, not from synonyms, the rest intact."""
        return apply_claims(scope)

    def plan(self, params: ApplyParams, scope: Scope, model: ModelInfo) -> StepPlan:  # noqa: ARG002
        """Compare all weights with the base model's where they lie, and name every tensor that differs.

        Raises:
            ModelError: weights that do not fit the model, are broken, or change nothing; pickles; other adapters.
            UsageError: a folder's configurations differ from the base model's, and nobody said what to do.
        """
        found = self._compared(params, model)
        changes: dict[str, list[str]] = {}
        for component, name in sorted(found.changes):
            changes.setdefault(component, []).append(name)
        return StepPlan(changes=changes, notes=(*found.notes, MADE_ELSEWHERE))

    def run(self, params: ApplyParams, ctx: StepContext) -> None:
        """Write every tensor that differs, in the base model's type; sums are made in float64 and rounded once.

        Raises:
            ModelError: a sum is too large for the model's type, or nothing changes.
            UsageError: an earlier step changed a tensor that whole weights would overwrite.
        """
        found = self._compared(params, ctx.model)
        spans: dict[Path, dict[str, tuple[int, int]]] = {}
        moved = size = 0.0
        for done, ((component, name), change) in enumerate(sorted(found.changes.items())):
            old = ctx.model.read(component, name)
            if change.whole is not None:
                _require_base(ctx.model, component, name, old, spans)
            new = _applied(old, change, f"{component}/{name}")
            ctx.write(component, name, new)
            moved += (new.double() - old.double()).square().sum().item()
            size += old.double().square().sum().item()
            ctx.progress(done + 1, len(found.changes), "writing tensors")
        if not moved:
            what = "change nothing: what they add is zero, or too small for the model's type"
            raise ModelError(what, where=", ".join(self.inputs(params)), hint="Raise scale, or check the LoRA.")
        ctx.record("tensors from elsewhere", sum(change.whole is not None for change in found.changes.values()))
        ctx.record("layers with a LoRA", sum(bool(change.added) for change in found.changes.values()))
        ctx.record("relative change of the tensors written", (moved / size) ** 0.5 if size else 0.0)

    def _compared(self, params: ApplyParams, model: ModelInfo) -> Found:
        key = (str(params.as_json()), tuple((name, _stamps(path)) for name, path in sorted(self.files.items())))
        if key not in self._found:
            self._found[key] = _compare(params, self.files, model)
        return self._found[key]


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of each file: other ones mean that it has to be read again."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return tuple((one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files)


def _compare(params: ApplyParams, files: Mapping[str, Path], model: ModelInfo) -> Found:
    sources = [read_source(entry, files[entry.path], model) for entry in params.weights]
    notes = list(_said_differences(sources, params))
    changes: dict[Place, Change] = {}
    for source in sources:
        changed, told = _whole_changes(source, model)
        notes += told
        added: dict[Place, list[LoraChange]] = {}
        for one in source.added:
            added.setdefault((one.component, one.name), []).append(one)
        if not changed and not added:
            hint = "It holds the base model's own weights: was the right file named?"
            raise ModelError("changes nothing", where=source.entry.path, hint=hint)
        changes |= {place: Change(slice_, ()) for place, slice_ in changed.items()}
        for place, more in added.items():
            before = changes.get(place, Change(None, ()))
            changes[place] = Change(before.whole, (*before.added, *more))
    return Found(changes, tuple(notes))


def _said_differences(sources: Sequence[Source], params: ApplyParams) -> Iterable[str]:
    for source in sources:
        if not source.differences:
            continue
        said = "; ".join(source.differences[:SHOWN])
        more = f"; and {len(source.differences) - SHOWN} more" if len(source.differences) > SHOWN else ""
        if params.differences == "refuse":
            raise UsageError(
                f"differs from the base model in more than weights: {said}{more}",
                where=source.entry.path,
                hint="A step changes weights alone. Take the base model that it was made from, or write"
                " differences: keep-base to test these weights with the base model's configurations.",
            )
        yield f"{source.entry.path}: the base model's configuration stays where it differs: {said}{more}"


def _whole_changes(source: Source, model: ModelInfo) -> tuple[dict[Place, Slice], list[str]]:
    """Return the tensors that differ from the base model's, and what a reader of the plan has to know of them."""
    changed: dict[Place, Slice] = {}
    rounded = values = 0
    spans: dict[Path, dict[str, tuple[int, int]]] = {}
    casts: set[str] = set()
    for (component, name), found in source.whole.items():
        base = _base_slice(model, component, name, spans)
        kinds = found.info.dtype, base.info.dtype
        if kinds[0] != kinds[1] and not set(kinds) <= set(FLOATS):
            what = f"has {component}/{name} as {kinds[0]}, the base model as {kinds[1]}"
            raise ModelError(what, where=source.entry.path, hint="Save it in a floating type, without quantisation.")
        difference = compare(found, base)
        if difference.broken:
            what = f"has NaN or infinity in {component}/{name} ({difference.broken} values as {kinds[1]})"
            raise ModelError(what, where=source.entry.path, hint="A value may be too large for the base model's type.")
        if difference.changed:
            changed[component, name] = found
            rounded += difference.rounded
            values += found.info.parameters
            casts |= {f"{kinds[0]} to {kinds[1]}"} if kinds[0] != kinds[1] else set()
    notes = []
    if rounded:
        notes.append(
            f"{source.entry.path}: {rounded:,} of {values:,} values are rounded ({', '.join(sorted(casts))}):"
            " the base model's type cannot hold them"
        )
    return changed, notes


def _base_slice(model: ModelInfo, component: str, name: str, spans: dict[Path, dict[str, tuple[int, int]]]) -> Slice:
    info = model.tensors(component)[name]
    path = model.base_files(component).parent / info.file
    if path not in spans:
        spans[path] = read_spans(path)
    return Slice(path, info, spans[path][name])


def _require_base(
    model: ModelInfo, component: str, name: str, old: Tensor, spans: dict[Path, dict[str, tuple[int, int]]]
) -> None:
    """Refuse to overwrite what an earlier step did."""
    import torch
    from safetensors import safe_open

    base = _base_slice(model, component, name, spans)
    with safe_open(base.path, framework="pt") as file:
        if torch.equal(file.get_tensor(name).view(torch.uint8), old.view(torch.uint8)):
            return
    raise UsageError(
        f"would overwrite what an earlier step did to {component}/{name}",
        hint="Put apply first: whole weights take the base model's place. A LoRA can be added at any point.",
    )


def _applied(old: Tensor, change: Change, where: str) -> Tensor:
    """Return the new tensor in the old one's type."""
    from safetensors import safe_open

    new = old
    if change.whole is not None:
        with safe_open(change.whole.path, framework="pt") as file:
            new = file.get_tensor(change.whole.info.name)
    if not change.added:
        return new.to(old.dtype)
    total = new.double()
    for one in change.added:
        total = total + one.change()
    cast = total.to(old.dtype)
    if not bool(cast.isfinite().all()):
        raise ModelError(f"{where} becomes NaN or infinity as {old.dtype}", hint="Lower scale, or check the LoRA.")
    return cast
