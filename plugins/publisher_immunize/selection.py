"""From the manifest's concepts to what is trained on: which concepts. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from publisher.api import Concept, Scope, UsageError
from publisher.api.choosing import named, spread
from publisher_immunize.params import ImmunizeParams


def choose(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """The concepts to immunise against, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    chosen = named("concepts", params.concepts, scope.concepts) if params.concepts else scope.concepts
    if not chosen:
        raise UsageError("there is no concept to immunise against", hint="Name at least one under 'concepts'.")
    return chosen


def choose_kept(params: ImmunizeParams, scope: Scope) -> tuple[Concept, ...]:
    """The kept concepts that give images, spread evenly.

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
    """What the user should know before it is run; every None of the parameters replaced."""
    size = f"{params.batch} images of each of {len(chosen)} concepts"
    rates = ", ".join(f"{kind} {params.rate(kind):g}" for kind in params.inners)
    found = [f"{params.steps} outer steps of {params.inner_steps} inner; {size}; lr {params.lr:g}, inner: {rates}"]
    if params.objective == "ascend" and params.strength and not params.bound:
        found.append("objective ascend is without bound: long runs destroy the model; set bound, or take hold")
    if "sks" in params.rare:
        found.append("'sks' is what attacks use as their rare word: a test with it would say nothing about others")
    return tuple(found)
