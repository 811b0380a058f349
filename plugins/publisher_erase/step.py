"""The step ``erase``: prompts to rows, rows to one map, the map into every key and value projection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from publisher.api import Claim, ModelError, ModelInfo, Requirements, Scope, Step, StepContext, StepPlan
from publisher_erase.claims import erase_claims, limits
from publisher_erase.params import EraseParams
from publisher_erase.plan import TokenSelection, check_encoders, find_projections, select, tokenise
from publisher_erase.targets import choose_targets

if TYPE_CHECKING:
    from torch import Tensor

    from publisher_erase.data import Encoders
    from publisher_erase.uce import LowRank, Rows

Counted = Callable[[int, str], Callable[[int], None]]
"""Function like :meth:`publisher.api.StepContext.counted`: total and text -> what counts pieces of work."""
VERIFIED_ROWS = 32
"""Number of concept rows that the finished weights are tried on."""
ALREADY = 0.25
"""Distance of concept and target, relative to the concept, below which the user is warned: 1.3 in the embedded model,
0.16 after a first edit."""


class Erase(Step[EraseParams]):
    """Erase concepts in closed form (UCE, RECE): their prompts read as other prompts, kept ones as before."""

    name = "erase"
    version = "1"
    summary = "closed-form concept erasure (UCE, RECE) in cross-attention"
    requires = Requirements(needs=("cross-attention", "clip-text"))

    def decide(self, params: EraseParams, scope: Scope, model: ModelInfo) -> EraseParams:
        """Choose the targets that the manifest leaves open.

        Raises:
            ModelError: the text encoder's files cannot be read.
        """
        return params.model_copy(update={"targets": choose_targets(params, scope, model)})

    def claims(self, params: EraseParams, scope: Scope) -> Sequence[Claim]:
        """Promise: not from plain prompts, not from synonyms, kept concepts intact, empty prompt as before."""
        chosen = tuple(concept for concept, _ in select(params, scope).concepts)
        return erase_claims(chosen, scope)

    def plan(self, params: EraseParams, scope: Scope, model: ModelInfo) -> StepPlan:
        """Name every ``attn2.to_k`` and ``attn2.to_v``, and what the user should know before.

        Raises:
            ModelError: a model whose text does not enter as the edit assumes.
            UsageError: no concept, or one the manifest does not have.
        """
        selection = select(params, scope)
        names = find_projections(model)
        check_encoders(model)
        return StepPlan(changes={model.anatomy.denoiser: names}, notes=(*selection.warnings, *limits(model.anatomy)))

    def run(self, params: EraseParams, ctx: StepContext) -> None:
        """Find the map and write ``W T`` for every projection; see ``uce.py`` and ``rece.py``.

        Raises:
            ModelError: a projection holds NaN or infinity, before or after.
            UsageError: prompts that are empty, too long, or contradict each other.
        """
        from publisher_erase.data import Encoders

        params = self.decide(params, ctx.scope, ctx.model)
        selection = select(params, ctx.scope)
        for warning in (*selection.warnings, *limits(ctx.model.anatomy)):
            ctx.warn(warning)
        names = find_projections(ctx.model)
        check_encoders(ctx.model)
        ctx.progress(0, len(names), "loading text encoders")
        encoders = Encoders(ctx.model, ctx.device)
        tokens = tokenise(selection, encoders.tokens)
        rows = embed_rows(params, tokens, encoders, ctx.counted)
        empty = next(encoders.embed([encoders.tokens("")])).hidden
        ctx.progress(0, len(names), "solving")
        edit = solve(params, rows, ctx, names)
        _write(ctx, names, edit, rows)
        ctx.record("unconditional drift", _relative(edit.rows(empty) - empty, empty))
        ctx.record("rank of the edit", min(edit.u.shape))
        ctx.record("projections", len(names))


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
    if params.method == "uce":
        return edit_map(rows, *scales)
    weights = (_finite(ctx.model.read(ctx.model.anatomy.denoiser, name), name) for name in names)
    return erase_map(rows, gram(weights, ctx.device), params.epochs, params.rho, scales, joint=params.joint)


def _write(ctx: StepContext, names: Sequence[str], edit: LowRank, rows: Rows) -> None:
    """Write all projections, and try the very tensors that are written: ``W' c`` against ``W g``."""
    from publisher_erase.uce import edit_weight

    component = ctx.model.anatomy.denoiser
    factors = edit.factors()
    step = max(1, len(rows.concepts) // VERIFIED_ROWS)
    concepts, targets = rows.concepts[::step].float(), rows.targets[::step].float()
    missed = distance = size = 0.0
    for done, name in enumerate(names):
        weight = _finite(ctx.model.read(component, name), name)
        edited = _finite(edit_weight(weight, factors), name)
        ctx.write(component, name, edited)
        old, new = weight.to(concepts), edited.to(concepts)
        read, wanted, was = concepts @ new.T, targets @ old.T, concepts @ old.T
        missed += _square(read - wanted)
        distance += _square(was - wanted)
        size += _square(was)
        ctx.progress(done + 1, len(names), "writing projections")
    if distance <= ALREADY**2 * size:
        ctx.warn("the concepts already read much like their targets: was this model edited before?")
    ctx.record("residual", math.sqrt(missed / max(distance, 1e-30)))


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
