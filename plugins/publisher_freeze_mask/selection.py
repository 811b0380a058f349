"""From the manifest's concepts to the two sides: which concepts. Imports no torch."""

from __future__ import annotations

from publisher.api import Concept, Scope, UsageError
from publisher.api.choosing import named, spread
from publisher_freeze_mask.params import FreezeMaskParams


def choose(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """The illegal concepts, in the manifest's order.

    Raises:
        UsageError: none, or a name that the manifest's concepts to go do not have.
    """
    chosen = named("concepts", params.concepts, scope.concepts) if params.concepts else scope.concepts
    if not chosen:
        raise UsageError("there is no concept to make a mask for", hint="Name at least one under 'concepts'.")
    return chosen


def choose_innocents(params: FreezeMaskParams, scope: Scope) -> tuple[Concept, ...]:
    """The kept concepts that the innocent side is learned from.

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
    """The kept concepts that the claims are tested with: none that the mask was learned from, if there are others."""
    learned = {concept.id for concept in choose_innocents(params, scope)}
    others = tuple(concept for concept in scope.keep if concept.id not in learned)
    return spread(others or scope.keep, params.check.innocents)
