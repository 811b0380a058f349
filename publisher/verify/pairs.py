"""Which images the report shows: a few of each check, first of each concept, and never of a private kind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from publisher.api import ImagePair, ImageRequest, Scope
from publisher.verify.asking import PRIVATE_KINDS
from publisher.verify.batches import drawing
from publisher.verify.survey import Survey

PER_CHECK = 6
IN_ALL = 36


def shown(requests: Sequence[ImageRequest], scope: Scope) -> tuple[ImageRequest, ...]:
    """The first request of each concept, then the second ones, up to :data:`PER_CHECK`."""
    by_concept: dict[str, list[ImageRequest]] = {}
    for request in requests:
        if scope.concept(request.concept).kind not in PRIVATE_KINDS:
            by_concept.setdefault(request.concept, []).append(request)
    rounds = zip_longest(*by_concept.values())
    return tuple(request for one in rounds for request in one if request is not None)[:PER_CHECK]


def pairs_of(
    checks: Sequence[tuple[str, str, Sequence[ImageRequest]]], scope: Scope, seen: Survey
) -> tuple[ImagePair, ...]:
    """The pairs for the report.

    Args:
        checks: id, scorer and the requests to show.
        scope: the concepts.
        seen: what was drawn and judged; what has no picture or no judgement is left out.
    """
    found = []
    for check, scorer, requests in checks:
        for request in requests:
            pair = _pair(check, scorer, request, scope, seen)
            found += [pair] if pair else []
    return tuple(found[:IN_ALL])


def _pair(check: str, scorer: str, request: ImageRequest, scope: Scope, seen: Survey) -> ImagePair | None:
    bare, kind = drawing(request), scope.concept(request.concept).kind
    if bare not in seen.pictures:
        return None
    said = seen.sights[bare].judgements[scorer]
    if isinstance(said, str):
        return None
    base, hardened = seen.pictures[bare]
    return ImagePair(
        concept=request.concept,
        check=check,
        prompt=request.prompt,
        seed=request.seed,
        base_png=base,
        hardened_png=hardened,
        base_label=said[0].labels.get(kind, ""),
        hardened_label=said[1].labels.get(kind, ""),
    )
