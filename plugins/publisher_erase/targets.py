"""The words that take a concept's place where the manifest names none: a kept concept of the same kind.

An object reads as the nearest one, a style as the one farthest from it; ``docs/explanation/defaults.md`` has counts.
"""

from __future__ import annotations

from publisher.api import ModelInfo, Scope
from publisher.api.words import stand_ins
from publisher_erase.params import EraseParams


def choose_targets(params: EraseParams, scope: Scope, model: ModelInfo) -> dict[str, str]:
    """Return concept's id -> the words that take its place, for every concept that the step erases.

    Args:
        params: their ``targets`` are kept as they are.
        scope: the step's concepts, and all that is to stay.
        model: its text encoder's files are read, without torch; see :func:`publisher.api.words.stand_ins`.

    Raises:
        ModelError: the text encoder's files cannot be read.
    """
    given = {} if params.targets == "auto" else dict(params.targets)
    erased = (concept for concept in scope.concepts if not params.concepts or concept.id in params.concepts)
    return given | stand_ins((concept for concept in erased if concept.id not in given), scope, model)
