"""The step ``erase``: prompts to rows, rows to one map, the map into weights by which text enters; or a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from publisher.api import Claim, ModelError, ModelInfo, Scope, Step, StepContext, StepPlan
from publisher_erase.claims import erase_claims, limits
from publisher_erase.params import EraseParams
from publisher_erase.plan import (
    Selection,
    TokenSelection,
    check_rows,
    naming_notes,
    require_consistent,
    require_targets,
    select,
    tokenise,
    training_notes,
)
from publisher_erase.presets import resolve_training
from publisher_erase.targets import choose_targets
from publisher_erase.tensors import (
    check_encoders,
    enters_at_once,
    find_entry,
    find_projections,
    find_trained,
    require_guidance,
)

if TYPE_CHECKING:
    from torch import Tensor

    from publisher_erase.data import Encoders
    from publisher_erase.uce import LowRank, Rows

Counted = Callable[[int, str], Callable[[int], None]]
"""Function like :meth:`publisher.api.StepContext.counted`: total and text -> what counts pieces of work."""
Put = Callable[[str, "Tensor"], None]
"""Function that gets the name and the value of an edited weight."""
VERIFIED_ROWS = 32
"""Number of concept rows that the finished weights are tried on."""
ALREADY = 0.25
"""Distance of concept and target, relative to the concept, below which the user is warned: 1.3 in the embedded model,
0.16 after a first edit."""


class Erase(Step[EraseParams]):
    """Erase concepts: in closed form (UCE, RECE), so that their prompts read as other prompts, or by a training."""

    name = "erase"
    version = "1"
    summary = "concept erasure: in closed form where text enters (UCE, RECE), or trained (surgical, robust)"

    def decide(self, params: EraseParams, scope: Scope, model: ModelInfo) -> EraseParams:
        """Choose what the manifest leaves open: targets, rows where text enters by one linear map, a training's rates.

        Raises:
            ModelError: the text encoder's files cannot be read.
        """
        chosen: dict[str, object] = {"targets": choose_targets(params, scope, model)}
        if "text-entry" in model.anatomy.capabilities and params.rows == "mean-pad":
            chosen["rows"] = "content"
        return resolve_training(params.model_copy(update=chosen), model)

    def claims(self, params: EraseParams, scope: Scope) -> Sequence[Claim]:
        """Promise: not from plain prompts, not from synonyms, kept concepts intact, empty prompt as before."""
        chosen = tuple(concept for concept, _ in select(params, scope).concepts)
        return erase_claims(chosen, scope, params)

    def plan(self, params: EraseParams, scope: Scope, model: ModelInfo) -> StepPlan:
        """Name every ``attn2.to_k`` and ``attn2.to_v``, or the text entry, or what is trained; and what to know before.

        Raises:
            ModelError: a model whose text does not enter as the edit assumes, or that cannot be trained.
            UsageError: no concept, one the manifest does not have, a target that is to go itself, a rule of rows that
                does not fit the model, or texts on which a training would contradict itself.
        """
        params = resolve_training(params, model)
        selection = select(params, scope)
        require_targets(params, selection, scope)
        names = _find(params, model)
        check_encoders(model)
        notes = (*selection.warnings, *limits(model.anatomy), *naming_notes(params, selection))
        if params.training is not None:
            require_guidance(model, params)
            require_consistent(params, selection)
            names = find_trained(params, model, names)
            notes = (*notes, *training_notes(params, selection, model))
        drawn = [concept.id for concept, _ in selection.concepts] if params.training is not None else ()
        return StepPlan(changes={model.anatomy.denoiser: names}, notes=notes, draws=tuple(drawn))

    def run(self, params: EraseParams, ctx: StepContext) -> None:
        """Find the map and write ``W T`` where text enters; see ``uce.py``, ``rece.py`` and ``entry.py``. Or train.

        Raises:
            ModelError: a weight holds NaN or infinity, before or after.
            UsageError: prompts that are empty, too long, or contradict each other; a training that diverges.
        """
        params = self.decide(params, ctx.scope, ctx.model)
        selection = select(params, ctx.scope)
        require_targets(params, selection, ctx.scope)
        for warning in (*selection.warnings, *limits(ctx.model.anatomy)):
            ctx.warn(warning)
        names = _find(params, ctx.model)
        check_encoders(ctx.model)
        if params.training is not None:
            require_guidance(ctx.model, params)
            require_consistent(params, selection)
            _train(params, ctx, selection, names)
            return
        component = ctx.model.anatomy.denoiser
        _edit(params, ctx, selection, names, lambda name, weight: ctx.write(component, name, weight))


def _find(params: EraseParams, model: ModelInfo) -> tuple[str, ...]:
    if not enters_at_once(model):
        return find_projections(model)
    check_rows(params)
    return find_entry(model)


def _edit(params: EraseParams, ctx: StepContext, selection: Selection, names: Sequence[str], put: Put) -> None:
    """Edit where text enters, in closed form; ``put`` gets each weight."""
    ctx.progress(0, len(names), "loading text encoders")
    edit_doors = _edit_entry if enters_at_once(ctx.model) else _edit_cross_attention
    edit_doors(params, ctx, selection, names, put)


def _train(params: EraseParams, ctx: StepContext, selection: Selection, names: Sequence[str]) -> None:
    """Train from the closed form's weights or the model's own, and write what was trained in the model's dtype."""
    from publisher.api.diffusion.writing import write_trained
    from publisher_erase.train import train_erasure

    def start() -> dict[str, Tensor]:
        edited: dict[str, Tensor] = {}
        if params.training is not None and params.training.init == "uce":
            _edit(params, ctx, selection, names, edited.__setitem__)
        return edited

    write_trained(ctx, train_erasure(ctx, params, selection, find_trained(params, ctx.model, names), start))


def _edit_cross_attention(
    params: EraseParams, ctx: StepContext, selection: Selection, names: Sequence[str], put: Put
) -> None:
    from publisher_erase.data import Encoders

    encoders = Encoders(ctx.model, ctx.device)
    tokens = tokenise(selection, encoders.tokens)
    rows = embed_rows(params, tokens, encoders, ctx.counted)
    empty = next(encoders.embed([encoders.tokens("")])).hidden
    ctx.progress(0, len(names), "solving")
    edit = solve(params, rows, ctx, names)
    missed = _write(ctx, names, edit, rows, put)
    ctx.record("residual", missed)
    ctx.record("unconditional drift", _relative(edit.rows(empty) - empty, empty))
    ctx.record("rank of the edit", min(edit.u.shape))
    ctx.record("projections", len(names))


def _edit_entry(params: EraseParams, ctx: StepContext, selection: Selection, names: Sequence[str], put: Put) -> None:
    """Edit what the rows enter by, and by a map of its own what the pooled vector does."""
    import torch

    from publisher_erase.entry import PipelineReader, entry_rows

    reader = PipelineReader(ctx.model, ctx.device, ctx.dtype)
    nothing = ctx.model.anatomy.negative or ""
    tokens = tokenise(selection.keeping(nothing), reader.tokens)
    rows, pooled = entry_rows(tokens, reader, ctx.counted)
    (empty,) = reader.read([reader.tokens(nothing)])
    anatomy = ctx.model.anatomy
    doors = {"": (anatomy.text_entry, rows, torch.cat([block.hidden for block in empty.blocks]))}
    if pooled is not None and empty.pooled is not None:
        doors[" of the pooled vector"] = (anatomy.pooled_entry, pooled, empty.pooled[None])
    ctx.progress(0, len(names), "solving")
    done = 0
    for which, (entry, found, unconditional) in doors.items():
        edit = solve(params, found, ctx, entry)
        if anatomy.text_fold and entry == anatomy.text_entry:
            missed, written = _fold(ctx, edit, found, put), anatomy.text_fold
        else:
            missed, written = _write(ctx, entry, edit, found, put, (done, len(names))), entry
        done += len(written)
        ctx.record(f"residual{which}", missed)
        ctx.record(f"unconditional drift{which}", _relative(edit.rows(unconditional) - unconditional, unconditional))
        ctx.record(f"rank of the edit{which}", min(edit.u.shape))


def embed_rows(
    params: EraseParams, tokens: TokenSelection, encoders: Encoders, counted: Counted = lambda *_: lambda _: None
) -> Rows:
    """Return the rows of the edit; each distinct prompt is encoded once, and ``counted`` counts them."""
    from publisher_erase.data import WITHOUT_PADDING, stack_rows

    padding = params.rows not in WITHOUT_PADDING
    pairs = [pair for concept in tokens.concepts for pair in concept]
    distinct = list({prompt.ids: prompt for pair in pairs for prompt in pair}.values())
    encoders.tell = counted(len(distinct) + len(tokens.keep), "prompts embedded")
    embedded = dict(zip((p.ids for p in distinct), encoders.embed(distinct, padding=padding), strict=True))
    concepts = [[(embedded[c.ids], embedded[g.ids]) for c, g in concept] for concept in tokens.concepts]
    return stack_rows(concepts, encoders.embed(tokens.keep, padding=padding), params.rows)


def solve(params: EraseParams, rows: Rows, ctx: StepContext, names: Sequence[str]) -> LowRank:
    """Return the map of the text embeddings."""
    from publisher_erase.rece import erase_map, gram
    from publisher_erase.uce import edit_map

    lam = params.lam * (rows.mean_square() if params.lam_scale == "relative" else 1.0)
    scales = (lam, params.erase_scale, params.preserve_scale)
    if params.method != "rece":  # a training starts from UCE
        return edit_map(rows, *scales)
    rounds = (params.epochs, params.rho, scales)
    weights = (_finite(ctx.model.read(ctx.model.anatomy.denoiser, name), name) for name in names)
    out, into = ctx.model.tensors(ctx.model.anatomy.denoiser)[names[0]].shape
    if len(names) == 1 and out < into:
        entry = next(weights).to(ctx.device).double()
        return erase_map(rows, entry, *rounds, joint=params.joint, thin=True)
    return erase_map(rows, gram(weights, ctx.device), *rounds, joint=params.joint)


def _write(
    ctx: StepContext,
    names: Sequence[str],
    edit: LowRank,
    rows: Rows,
    put: Put,
    progress: tuple[int, int] | None = None,
) -> float:
    """Put all projections where they go, and try the very tensors that go there: ``W' c`` against ``W g``.

    Returns:
        The distance that is left, relative to before.
    """
    from publisher_erase.uce import edit_weight

    component = ctx.model.anatomy.denoiser
    before, total = progress or (0, len(names))
    factors = edit.factors()
    concepts, targets = _tried(rows)
    found = []
    for done, name in enumerate(names):
        weight = _finite(ctx.model.read(component, name), name)
        edited = _finite(edit_weight(weight, factors), name)
        put(name, edited)
        old, new = weight.to(concepts), edited.to(concepts)
        found.append((concepts @ new.T, targets @ old.T, concepts @ old.T))
        ctx.progress(before + done + 1, total, "writing projections")
    return _missed(ctx, found)


def _fold(ctx: StepContext, edit: LowRank, rows: Rows, put: Put) -> float:
    """Put the map into the layer that writes what the text entry reads, and try it at each entry: ``W T c``.

    Returns:
        The distance that is left, relative to before.
    """
    from publisher_erase.uce import edit_writer

    anatomy, factors = ctx.model.anatomy, edit.factors()
    for done, name in enumerate(anatomy.text_fold):
        weight = _finite(ctx.model.read(anatomy.denoiser, name), name)
        put(name, _finite(edit_writer(weight, factors), name))
        ctx.progress(done + 1, len(anatomy.text_fold), "writing projections")
    concepts, targets = _tried(rows)
    moved, found = edit.rows(rows.concepts)[:: _stride(rows)].float(), []
    for name in anatomy.text_entry:
        old = _finite(ctx.model.read(anatomy.denoiser, name), name).to(concepts)
        found.append((moved @ old.T, targets @ old.T, concepts @ old.T))
    return _missed(ctx, found)


def _stride(rows: Rows) -> int:
    return max(1, len(rows.concepts) // VERIFIED_ROWS)


def _tried(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return the rows that the finished weights are tried on, and what they are to become, float32."""
    return rows.concepts[:: _stride(rows)].float(), rows.targets[:: _stride(rows)].float()


def _missed(ctx: StepContext, found: Sequence[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Return how far each layer reads from where it should, relative to before; warn if it was near before.

    Args:
        ctx: is told the warning.
        found: what each layer reads, what it should read, and what it read.
    """
    missed = sum(_square(read - wanted) for read, wanted, _ in found)
    distance = sum(_square(was - wanted) for _, wanted, was in found)
    if distance <= ALREADY**2 * sum(_square(was) for _, _, was in found):
        ctx.warn("the concepts already read much like their targets: was this model edited before?")
    return math.sqrt(missed / max(distance, 1e-30))


def _square(x: Tensor) -> float:
    return x.double().square().sum().item()


def _relative(change: Tensor, whole: Tensor) -> float:
    return math.sqrt(_square(change) / _square(whole))


def _finite(weight: Tensor, name: str) -> Tensor:
    if not bool(weight.isfinite().all()):
        raise ModelError(
            f"{name!r} holds NaN or infinity ({weight.dtype})",
            hint="If the base model's is finite, the edit overflowed: raise lam or release in a wider dtype.",
        )
    return weight
