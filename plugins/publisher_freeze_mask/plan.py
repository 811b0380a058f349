"""What the step is going to do: which concepts, what can be frozen, and what the user should know. Imports no torch."""

from __future__ import annotations

from publisher.api import Concept, ModelError, ModelInfo, Scope, UsageError
from publisher.api.choosing import named, spread
from publisher.api.freeze_mask import Candidate
from publisher_freeze_mask.params import FreezeMaskParams

BOUND = "the mask is good for these weights alone: a later step must not change what it freezes"


def choose(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the illegal concepts, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    chosen = named("concepts", params.concepts, scope.concepts) if params.concepts else scope.concepts
    if not chosen:
        raise UsageError("there is no concept to make a mask for", hint="Name at least one under 'concepts'.")
    return chosen


def choose_innocents(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the kept concepts that the innocent side is learned from.

    Raises:
        UsageError: nothing is kept, or a name that no kept concept has.
    """
    if not scope.keep:
        raise UsageError(
            "there is nothing to keep, so nothing says what fine-tuning is to stay possible",
            hint="List concepts under 'keep': a mask that weighs nothing against harm freezes whatever learns best.",
        )
    if isinstance(params.innocents, int):
        return spread(scope.keep, params.innocents)
    return named("innocents", params.innocents, scope.keep)


def choose_tested(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the kept concepts that test the claims: none that the mask was learned from, if there are others."""
    learned = {concept.id for concept in choose_innocents(params, scope)}
    others = tuple(concept for concept in scope.keep if concept.id not in learned)
    return spread(others or scope.keep, params.check.innocents)


def candidates(params: FreezeMaskParams, model: ModelInfo) -> dict[str, Candidate]:
    """Return the tensors that may be frozen, by name, and how many rows of each are one unit.

    Raises:
        ModelError: the number of heads does not divide a projection; heads are asked for and the family names none; or
            a mask is to be learned from cross-attention and there is none.
    """
    if params.adapt.kind == "cross-attention":
        model.anatomy.require(("cross-attention",), "a mask learned from cross-attention")
    found = {
        name: Candidate(shape=info.shape, rows=_rows(name, info.shape, params, model))
        for name, info in model.tensors(model.anatomy.denoiser).items()
        if name not in model.anatomy.constants and (len(info.shape) > 1 or params.one_d == "include")
    }
    if params.granularity == "head" and not any(one.rows for one in found.values()):
        raise ModelError(
            f"a mask of heads needs to know them, and the family {model.anatomy.family} names no attention with heads",
            where=model.anatomy.denoiser,
            hint="Set granularity to tensor or row.",
        )
    return found


def trained(params: FreezeMaskParams, model: ModelInfo) -> list[str]:
    """Return the names of the tensors that theta_ft may change."""
    anatomy = model.anatomy
    names = sorted(model.tensors(anatomy.denoiser).keys() - set(anatomy.constants))
    if params.adapt.kind == "full":
        return names
    return [name for name in names if f".{anatomy.cross_attention}." in name]


def _rows(name: str, shape: tuple[int, ...], params: FreezeMaskParams, model: ModelInfo) -> int:
    if params.granularity == "row":
        return 1 if shape else 0
    anatomy = model.anatomy
    count = anatomy.heads(name, model.config(anatomy.denoiser)) if params.granularity == "head" else 0
    if count and shape[0] % count:
        raise ModelError(f"{name} has {shape[0]} rows, which {count} heads do not divide")
    return shape[0] // count if count else 0


def notes(params: FreezeMaskParams, model: ModelInfo) -> tuple[str, ...]:
    """Return what the user should know before the run. The parameters have to be decided."""
    tensors = model.tensors(model.anatomy.denoiser).values()
    total = sum(info.parameters for info in tensors)
    flat = [info.parameters for info in tensors if len(info.shape) <= 1]
    found = [
        BOUND,
        f"{len(flat)} of {len(tensors)} tensors have one axis, and {sum(flat) / total:.2%} of the parameters",
    ]
    if params.recipe in ("released", "random"):
        found.append(f"recipe {params.recipe} learns nothing: it is there to compare with")
    if params.count == "tensors":
        found.append("the ratio counts tensors: the share of parameters can be anything; read both in the report")
    if "sks" in params.rare:
        found.append("'sks' is what attacks use as their rare word: a test with it would say nothing about others")
    return tuple(found)
