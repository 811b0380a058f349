"""What the step is going to do: which concepts, which tensors, and what the user should know. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from publisher.api import Concept, ModelInfo, Scope, UsageError, cross_attention
from publisher.api.choosing import named, spread
from publisher_immunize.params import ImmunizeParams, Outer

KEYS_VALUES = re.compile(r"\.attn2\.to_[kv]$")
"""Paths of the layers that read the text."""
ATTENTION = re.compile(r"\.attn[12]\.(to_[qkv]|to_out\.0)$")
"""Paths of the layers that adapters are put on."""
_SETS = {
    "cross-attention-kv": re.compile(r"\.attn2\.to_[kv]\.weight$"),
    "cross-attention": re.compile(r"\.attn2\.(to_[qkv]|to_out\.0)\."),
    "attention": re.compile(r"\.attn[12]\.(to_[qkv]|to_out\.0)\."),
    "full": re.compile(""),
}


def choose(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the concepts to immunise against, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    chosen = named("concepts", params.concepts, scope.concepts) if params.concepts else scope.concepts
    if not chosen:
        raise UsageError("there is no concept to immunise against", hint="Name at least one under 'concepts'.")
    return chosen


def choose_kept(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """Choose the kept concepts that give images, spread evenly.

    Raises:
        UsageError: there is none, and a term of the objective needs some.
    """
    if not scope.keep and (params.prior + params.lam + params.mu or "dreambooth" in params.inners):
        raise UsageError(
            "there is nothing to keep, so nothing would protect the rest of the model",
            hint="List concepts under 'keep'; or set prior, lam and mu to 0, and see what is left of the model.",
        )
    return spread(scope.keep, params.keep_concepts)


def notes(params: ImmunizeParams, chosen: Sequence[Concept]) -> tuple[str, ...]:
    """Return what the user should know before the run. The parameters have to be decided."""
    size = f"{params.batch} images of each of {len(chosen)} concepts"
    rates = ", ".join(f"{kind} {params.rate(kind):g}" for kind in params.inners)
    found = [f"{params.steps} outer steps of {params.inner_steps} inner; {size}; lr {params.lr:g}, inner: {rates}"]
    if params.objective == "ascend" and params.strength and params.bound is None:
        found.append("objective ascend is without bound: long runs destroy the model; set bound, or take hold")
    if "sks" in params.rare:
        found.append("'sks' is what attacks use as their rare word: a test with it would say nothing about others")
    return tuple(found)


def in_set(names: Iterable[str], kind: Outer) -> list[str]:
    """Return those of ``names`` that belong to a set of tensors, sorted."""
    return sorted(name for name in names if _SETS[kind].search(name))


def exported(model: ModelInfo, kind: Outer) -> list[str]:
    """Return the names of the denoiser's tensors that are trained and written.

    Raises:
        ModelError: cross-attention is not where the family has it.
    """
    cross_attention(model)
    return in_set(model.tensors(model.anatomy.denoiser), kind)
