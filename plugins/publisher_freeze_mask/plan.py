"""What the step is going to do: which concepts, what can be frozen, and what the user should know. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from publisher.api import Concept, ModelError, ModelInfo, Scope, UsageError
from publisher.api.choosing import named, spread
from publisher.api.freeze_mask import Candidate
from publisher_freeze_mask.params import FreezeMaskParams

HEADS = re.compile(r"\.attn[12]\.to_[qkv]\.(weight|bias)$")
"""Tensors whose first axis is the heads, one after the other."""
CROSS_ATTENTION = re.compile(r"\.attn2\.")
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
        ModelError: the number of heads does not divide a projection, or attention is asked for by name and the family
            has none of that kind.
    """
    if params.granularity == "head" or params.adapt.kind == "cross-attention":
        model.anatomy.require(("cross-attention",), "a mask of heads, or one learned from cross-attention,")
    component = model.anatomy.denoiser
    config = model.config(component)
    return {
        name: Candidate(shape=info.shape, rows=_rows(name, info.shape, params, config))
        for name, info in model.tensors(component).items()
        if name not in model.anatomy.constants and (len(info.shape) > 1 or params.one_d == "include")
    }


def trained(params: FreezeMaskParams, model: ModelInfo) -> list[str]:
    """Return the names of the tensors that theta_ft may change."""
    names = model.tensors(model.anatomy.denoiser).keys() - set(model.anatomy.constants)
    return sorted(name for name in names if params.adapt.kind == "full" or CROSS_ATTENTION.search(name))


def heads(name: str, config: Mapping[str, Any]) -> int:
    """Return the number of attention heads of the block that a tensor is in: one for all blocks, or one for each.

    diffusers calls the number of heads ``attention_head_dim`` in these configurations.
    """
    found = config.get("num_attention_heads") or config.get("attention_head_dim") or 1
    if isinstance(found, int):
        return found
    place = re.match(r"(down|up)_blocks\.(\d+)\.", name)
    if place is None:
        return int(found[-1])
    ordered = found if place[1] == "down" else found[::-1]
    return int(ordered[int(place[2])])


def _rows(name: str, shape: tuple[int, ...], params: FreezeMaskParams, config: Mapping[str, Any]) -> int:
    if params.granularity == "row":
        return 1 if shape else 0
    if params.granularity == "tensor" or not HEADS.search(name):
        return 0
    count = heads(name, config)
    if shape[0] % count:
        raise ModelError(f"{name} has {shape[0]} rows, which {count} heads do not divide")
    return shape[0] // count


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
