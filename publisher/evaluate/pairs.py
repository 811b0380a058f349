"""Which images the report shows: a few of each check, first of each concept, and never of a private kind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from publisher.api import Check, ImagePair, ImageRequest, Scope
from publisher.evaluate.images import Wanted, without_concept
from publisher.evaluate.observe import Observations
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.requests import PRIVATE_KINDS

PER_CHECK = 6
IN_ALL = 36


def shown(requests: Sequence[ImageRequest], scope: Scope) -> tuple[ImageRequest, ...]:
    """Return the first request of each concept, then the second ones, up to :data:`PER_CHECK`."""
    by_concept: dict[str, list[ImageRequest]] = {}
    for request in requests:
        if scope.concept(request.concept).kind not in PRIVATE_KINDS:
            by_concept.setdefault(request.concept, []).append(request)
    rounds = zip_longest(*by_concept.values())
    return tuple(request for one in rounds for request in one if request is not None)[:PER_CHECK]


def pairs_of(
    checks: Sequence[tuple[PreparedCheck, Sequence[ImageRequest]]], scope: Scope, seen: Observations
) -> tuple[ImagePair, ...]:
    """Return the pairs for the report.

    Args:
        checks: each with the requests to show.
        scope: the concepts.
        seen: what was generated and judged; what has no picture or no judgement is left out, and what another check's
            pictures show already.
    """
    found: dict[object, ImagePair] = {}
    attached = {
        without_concept(request) for prepared, requests in checks if prepared.check.attached for request in requests
    }
    for prepared, requests in checks:
        check = prepared.check
        for request in requests:
            bare, scorer = without_concept(request), prepared.scorers[request.concept]
            pair = _pair(check, scorer, request, scope, seen)
            if pair and (check.attached or bare not in attached):
                found.setdefault((bare, request.concept, scorer, check.attached), pair)
    return _shared_out(list(found.values()))


def _shared_out(pairs: Sequence[ImagePair]) -> tuple[ImagePair, ...]:
    """Choose at most :data:`IN_ALL`: the first of each check, then the second ones, in the checks' order."""
    of_check: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        of_check.setdefault(pair.check, []).append(i)
    in_turn = [i for one in zip_longest(*of_check.values()) for i in one if i is not None]
    return tuple(pairs[i] for i in sorted(in_turn[:IN_ALL]))


def _pair(check: Check, scorer: str, request: ImageRequest, scope: Scope, seen: Observations) -> ImagePair | None:
    bare, kind = without_concept(request), scope.concept(request.concept).kind
    labels = _labels((bare, check.attached), scorer, kind, seen)
    if labels is None:
        return None
    base, hardened = seen.pictures[bare, check.attached]
    pair = ImagePair(
        concept=request.concept,
        check=check.id,
        prompt=request.prompt,
        seed=request.seed,
        base_png=base,
        hardened_png=hardened,
        base_label=labels[0],
        hardened_label=labels[1],
        membranes=check.membranes,
    )
    without = _labels((bare, False), scorer, kind, seen)
    if seen.permeabilities is None or not check.attached or without is None:
        return pair
    update = {"without_png": seen.pictures[bare, False][1], "without_label": without[1]}
    return pair.model_copy(update=update)


def _labels(wanted: Wanted, scorer: str, kind: str, seen: Observations) -> tuple[str, str] | None:
    """Return what the scorer sees in both pictures, if they are there; empty words where nobody judged them."""
    if wanted not in seen.pictures:
        return None
    if not scorer:
        return "", ""
    said = seen.seen[wanted].judgements[scorer]
    return None if isinstance(said, str) else (said[0].labels.get(kind, ""), said[1].labels.get(kind, ""))
