"""The words that take a concept's place where the manifest names none: a kept concept of the same kind.

An object reads as the nearest one: so the least is changed. A style reads as the one farthest from it. Styles that are
near look alike too, and then the old one is still seen in the new one: ``docs/explanation/defaults.md`` has the counts.
"""

from __future__ import annotations

from publisher.api import Concept, ModelInfo, Scope
from publisher.api.words import WordSpace, shares_a_word
from publisher_erase.params import EraseParams


def choose_targets(params: EraseParams, scope: Scope, model: ModelInfo) -> dict[str, str]:
    """Return concept's id -> the words that take its place, for every concept that the step erases.

    Nearness is that of the token embeddings of the model's first text encoder. Names that have a word in common with
    the concept's are left out: "fork and knife" would bring "knife" back. What goes is never a target. A concept of
    whose kind nothing is kept reads as the empty prompt.

    Args:
        params: their ``targets`` are kept as they are.
        scope: the step's concepts, and all that is to stay.
        model: its text encoder's files are read, without torch.

    Raises:
        ModelError: the text encoder's files cannot be read.
    """
    given = {} if params.targets == "auto" else dict(params.targets)
    space: WordSpace | None = None
    for concept in scope.concepts:
        if concept.id in given or (params.concepts and concept.id not in params.concepts):
            continue
        names = _candidates(concept, scope)
        if names:
            space = space or WordSpace(model)
        by_nearness = space.nearest(concept.name, names) if names and space else [("", 0.0)]
        given[concept.id] = by_nearness[-1 if concept.kind == "style" else 0][0]
    return given


def _candidates(concept: Concept, scope: Scope) -> list[str]:
    own = (concept.name, *concept.synonyms)
    kept = (other.name for other in scope.keep if other.kind == concept.kind)
    return [name for name in dict.fromkeys(kept) if not shares_a_word(own, (name,))]
