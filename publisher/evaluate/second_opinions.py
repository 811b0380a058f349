"""Second opinions: scorers that judge the same images, and how often they agree with those that decide.

No verdict depends on them. Each image counts once for each concept that it was generated for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from publisher.api import Concept, ImageRequest, Opinion, Scope
from publisher.evaluate.context import ReleaseScorer, Tools
from publisher.evaluate.images import without_concept
from publisher.evaluate.observe import Observations
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.scorers import both_judged

Model = Literal["base", "hardened"]
MODELS: tuple[Model, Model] = ("base", "hardened")
COUNTS = {(True, True): "both", (True, False): "first", (False, True): "second", (False, False): "neither"}
"""What the scorer that decides sees, what the second one sees -> the field of an opinion."""


def second_scorers(concept: Concept, judge: str, tools: Tools) -> Iterator[str]:
    """Yield the ids of the scorers that have a second opinion about a concept.

    Args:
        concept: of a check.
        judge: scorers that decide about it; empty: nobody does.
        tools: all scorers.
    """
    deciding = tools.members(judge)
    for name in tools.second:
        if deciding and name not in {one.id for one in deciding} and _knows(tools.scorers[name], concept):
            yield name


def _knows(scorer: ReleaseScorer, concept: Concept) -> bool:
    labels = scorer.scorer.labels().get(concept.kind, ()) if concept.kind in scorer.kinds else ()
    return labels is None or concept.label in labels


def opinions(
    checks: Iterable[PreparedCheck], seen: Observations, scope: Scope, tools: Tools
) -> dict[str, tuple[Opinion, ...]]:
    """Count how often each second scorer agrees, by concept and model; scorer's id -> its counts.

    Args:
        checks: that ask for images by prompts, and whose metrics read judgements.
        seen: what was generated and judged.
        scope: the release's concepts; what is kept is counted together.
        tools: the scorers.
    """
    return {name: tuple(_counted(name, list(checks), seen, scope, tools)) for name in tools.second}


def _counted(
    name: str, checks: Iterable[PreparedCheck], seen: Observations, scope: Scope, tools: Tools
) -> Iterator[Opinion]:
    said: dict[tuple[str, Model], dict[object, str]] = {}
    gone = [concept.id for concept in scope.concepts]
    for item in checks:
        for request in item.asked.requests:
            concept = scope.concept(request.concept)
            if name not in second_scorers(concept, item.scorers[concept.id], tools):
                continue
            where = concept.id if concept.id in gone else ""
            for model, image, field in _compared(item, request, concept, seen, name):
                said.setdefault((where, model), {})[concept.id, image] = field
    for where in (*gone, ""):
        for model in MODELS:
            if fields := said.get((where, model)):
                yield _opinion(where, model, Counter(fields.values()))


def _opinion(concept: str, model: Model, tally: Counter[str]) -> Opinion:
    return Opinion(
        concept=concept,
        model=model,
        both=tally["both"],
        first=tally["first"],
        second=tally["second"],
        neither=tally["neither"],
        unsure=tally["unsure"],
    )


def _compared(
    item: PreparedCheck, request: ImageRequest, concept: Concept, seen: Observations, name: str
) -> Iterator[tuple[Model, object, str]]:
    """Yield model, what tells its image from others, and the count that it belongs to."""
    plain = without_concept(request)
    view = seen.seen.get((plain, item.check.attached))
    if view is None:
        return
    first, second = both_judged(item.scorers[concept.id], view.judgements), view.judgements.get(name, "")
    if isinstance(first, str) or isinstance(second, str):
        return
    attached: dict[Model, bool | None] = {"base": None, "hardened": item.check.attached}
    for model, one, other in zip(MODELS, first, second, strict=True):
        both = one.shows(concept), other.shows(concept)
        field = COUNTS[bool(both[0]), bool(both[1])] if None not in both else "unsure"
        yield model, (plain, attached[model]), field
