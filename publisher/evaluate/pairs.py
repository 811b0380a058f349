"""Which images the report shows: a few of each check, first of each concept, and never of a private kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest

from publisher.api import Check, CheckRecord, ImagePair, ImageRequest, Judgement, Scope
from publisher.evaluate.images import Wanted, without_concept
from publisher.evaluate.observe import Observations
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.requests import PRIVATE_KINDS
from publisher.evaluate.scorers import both_judged

PER_CHECK = 6
IN_ALL = 48
WORST = 5
"""Pairs of a check of what stays that are shown for certain: the concepts that lost most come first."""


def shown(requests: Sequence[ImageRequest], scope: Scope, first: Sequence[str] = ()) -> tuple[ImageRequest, ...]:
    """Return the first request of each concept, then the second ones, up to :data:`PER_CHECK`.

    Args:
        requests: of a check.
        scope: says which concepts are private.
        first: concepts to begin with; the others follow in the order of the requests.
    """
    by_concept: dict[str, list[ImageRequest]] = {name: [] for name in first}
    for request in requests:
        if scope.concept(request.concept).kind not in PRIVATE_KINDS:
            by_concept.setdefault(request.concept, []).append(request)
    rounds = zip_longest(*by_concept.values())
    return tuple(request for one in rounds for request in one if request is not None)[:PER_CHECK]


def worst_concepts(record: CheckRecord) -> tuple[str, ...]:
    """Return the concepts that a metric names as the ones that lost most; none where it names none."""
    named = record.measurement.details.get("worst") if record.measurement else None
    rows = named if isinstance(named, list) else []
    return tuple(str(row["concept"]) for row in rows if isinstance(row, dict) and row.get("concept") in record.concepts)


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
    gone = {concept.id for concept in scope.concepts}
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
    worst = {prepared.check.id: WORST for prepared, _ in checks if not gone.intersection(prepared.check.concepts)}
    return _shared_out(list(found.values()), gone, worst)


def _shared_out(pairs: Sequence[ImagePair], gone: Collection[str], least: Mapping[str, int]) -> tuple[ImagePair, ...]:
    """Choose at most :data:`IN_ALL`, in the checks' order: the first of each check, then the second ones, and so on.

    The first check of a concept that goes has two turns in each round: its pictures begin the report.

    Args:
        pairs: of all checks.
        gone: ids of the concepts that go.
        least: check -> number of its pairs that come in the first round.
    """
    turns: list[tuple[float, int]] = []
    before: Counter[str] = Counter()
    first: dict[str, str] = {}
    for i, pair in enumerate(pairs):
        leads = pair.concept in gone and first.setdefault(pair.concept, pair.check) == pair.check
        place = before[pair.check]
        turns.append((0 if place < least.get(pair.check, 1) else place / (2 if leads else 1), i))
        before[pair.check] += 1
    return tuple(pairs[i] for i in sorted(i for _, i in sorted(turns)[:IN_ALL]))


def _pair(check: Check, scorer: str, request: ImageRequest, scope: Scope, seen: Observations) -> ImagePair | None:
    bare, kind = without_concept(request), scope.concept(request.concept).kind
    labels, pictures = _labels((bare, check.attached), scorer, kind, seen), seen.pictures((bare, check.attached))
    if labels is None or pictures is None:
        return None
    base, hardened = pictures
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
    without, alone = _labels((bare, False), scorer, kind, seen), seen.pictures((bare, False))
    if seen.permeabilities is None or not check.attached or without is None or alone is None:
        return pair
    update = {"without_png": alone[1], "without_label": without[1]}
    return pair.model_copy(update=update)


def _labels(wanted: Wanted, scorer: str, kind: str, seen: Observations) -> tuple[str, str] | None:
    """Return what the scorer sees in both pictures, if they are there; empty words where nobody judged them."""
    if wanted not in seen.places:
        return None
    if not scorer:
        return "", ""
    said = both_judged(scorer, seen.seen[wanted].judgements)
    return None if isinstance(said, str) else (_word(said[0], kind), _word(said[1], kind))


def _word(said: Judgement, kind: str) -> str:
    """Return what the scorer sees, in one word or several."""
    if kind in said.unsure or kind in said.disputed:
        return "unsure"
    return ", ".join(said.seen[kind]) or "nothing" if kind in said.seen else said.labels.get(kind, "")
