"""One row a check, one column a model; every model against the first one, image by image where that is possible."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from publisher.api import CheckRecord, ClaimRecord, Interval, Observation, Params, Verdict
from publisher.api.evidence import EvidenceRow
from publisher.comparison.subjects import Subject
from publisher.errors import UsageError
from publisher.registry.own import own_metrics
from publisher.report import verdicts

PICTURES = 3
"""Strips of one concept."""
Outcome = Literal["better", "worse", "not told apart", "not compared"]


class Difference(Params):
    """A model's number less the first model's."""

    outcome: Outcome
    """``better`` or ``worse`` only where the whole interval lies on one side."""
    interval: Interval | None = None
    """The difference of paired shares; None: the two intervals were compared instead, or nothing was."""
    how: str
    """How it was told, or why it was not, in a short sentence."""


class ComparedCheck(Params):
    """What one model's report says of a check."""

    check: CheckRecord | None = None
    """None: the check was not made of this model."""
    verdict: Verdict | None = None
    difference: Difference | None = None
    """None in the first model's column."""


class ComparedRow(Params):
    """One check of one claim."""

    sentence: str
    """The claim."""
    what: str
    """Attack, metric and state of the membranes."""
    cells: tuple[ComparedCheck, ...]
    """One for each model."""


class Strip(Params):
    """Images of one prompt and seed: the base model's, and every hardened model's."""

    concept: str
    prompt: str
    seed: int
    base_png: str
    """Base64."""
    pngs: tuple[str, ...]
    """Base64, one for each model."""


class ModelComparison(Params):
    """Several hardened models of one base model."""

    base: str
    """Reference of the base model."""
    base_digest: str
    names: tuple[str, ...]
    """Of the models; the others are compared with the first."""
    decisions: tuple[Verdict, ...]
    steps: tuple[tuple[str, ...], ...]
    """Names of the steps that made each model."""
    rows: tuple[ComparedRow, ...]
    strips: tuple[Strip, ...] = ()
    comparisons: int = Field(default=0, ge=0)
    """Number of differences that could be told; one in twenty is beyond its interval by chance alone."""


def compare(subjects: Sequence[Subject]) -> ModelComparison:
    """Put reports side by side.

    Shares are compared image by image: the same prompts and seeds, and equal images of the base model. Everything else
    is compared by its intervals, which is stricter: they must not overlap.

    Args:
        subjects: two or more; the first is what the others are compared with.

    Raises:
        UsageError: fewer than two, equal names, or different base models.
    """
    if len(subjects) < 2:
        raise UsageError("one report alone cannot be compared", hint="Give two or more, the one to compare with first.")
    names = [one.name for one in subjects]
    if len(set(names)) < len(names):
        raise UsageError(f"two reports have one name: {', '.join(names)}", hint="Give each another name: NAME=REPORT.")
    first = subjects[0].report
    for one in subjects[1:]:
        if one.report.model.digest != first.model.digest:
            raise UsageError(
                f"{one.name} and {subjects[0].name} were made from different base models:"
                f" {one.report.model.source} and {first.model.source}",
                hint="Numbers are against the base model, so only models of the same one can be compared.",
            )
    rows = tuple(_rows(subjects))
    told = [cell.difference for row in rows for cell in row.cells if cell.difference is not None]
    return ModelComparison(
        base=first.model.source,
        base_digest=first.model.digest,
        names=tuple(names),
        decisions=tuple(verdicts.decision(one.report) for one in subjects),
        steps=tuple(tuple(step.name for step in one.report.steps) for one in subjects),
        rows=rows,
        strips=tuple(_strips(subjects)),
        comparisons=sum(difference.outcome != "not compared" for difference in told),
    )


def _rows(subjects: Sequence[Subject]) -> Iterator[ComparedRow]:
    found: dict[str, dict[int, tuple[ClaimRecord, CheckRecord]]] = {}
    for place, subject in enumerate(subjects):
        for claim in subject.report.claims:
            for check in claim.checks:
                found.setdefault(_key(claim, check), {}).setdefault(place, (claim, check))
    for places in found.values():
        claim, check = next(iter(places.values()))
        cells = [_cell(place, places, subjects) for place in range(len(subjects))]
        membranes = "" if check.attached else ", without membranes"
        yield ComparedRow(
            sentence=claim.sentence, what=f"{check.attack} > {check.metric}{membranes}", cells=tuple(cells)
        )


def _key(claim: ClaimRecord, check: CheckRecord) -> str:
    """Return what two reports must agree on for their numbers to be about the same."""
    asked = [check.attack, check.attack_params, check.metric, check.metric_params, sorted(check.concepts)]
    return json.dumps([claim.sentence, *asked, check.membranes], sort_keys=True)


def _cell(
    place: int, places: Mapping[int, tuple[ClaimRecord, CheckRecord]], subjects: Sequence[Subject]
) -> ComparedCheck:
    check = places[place][1] if place in places else None
    verdict = verdicts.check_verdict(check) if check else None
    if place == 0:
        return ComparedCheck(check=check, verdict=verdict)
    first = places[0][1] if 0 in places else None
    return ComparedCheck(
        check=check, verdict=verdict, difference=_difference(first, check, subjects[0], subjects[place])
    )


def _difference(
    first: CheckRecord | None, second: CheckRecord | None, reference: Subject, subject: Subject
) -> Difference:
    if first is None or second is None:
        name = (reference if first is None else subject).name
        return Difference(outcome="not compared", how=f"{name} was not tested")
    if first.measurement is None or second.measurement is None:
        name = (reference if first.measurement is None else subject).name
        return Difference(outcome="not compared", how=f"{name} was not measured")
    if first.scorer and _judge(reference, first) != _judge(subject, second):
        return Difference(outcome="not compared", how="other scorers, or other versions of them, judged")
    ours, theirs = reference.rows.get(first.id, ()), subject.rows.get(second.id, ())
    if not ours or not counts_images(first):
        return _by_intervals(first.measurement.hardened, second.measurement.hardened, first.better)
    return _by_images(ours, theirs, first.better)


def counts_images(check: CheckRecord) -> bool:
    """Return whether a check's number is a share of judged images, or a difference of such shares."""
    metric = own_metrics().get(check.metric)
    return metric is not None and metric.judged and check.unit in ("share", "points")


def _judge(subject: Subject, check: CheckRecord) -> object:
    cards = subject.report.scorers
    bare = {name: card.model_copy(update={"opinions": ()}).as_json() for name, card in cards.items()}
    return [bare.get(name, name) for name in check.scorer.split(", ")]


def _by_images(
    ours: Sequence[EvidenceRow], theirs: Sequence[EvidenceRow], better: Literal["lower", "higher"]
) -> Difference:
    first, second = ({request_of(row): row for row in rows} for rows in (ours, theirs))
    if first.keys() != second.keys():
        same = len(first.keys() & second.keys())
        how = f"other prompts or seeds: {same} of {len(first)} and {len(second)} images are of the same request"
        return Difference(outcome="not compared", how=how)
    if any(row.base_hit is None for row in (*ours, *theirs)):
        return Difference(outcome="not compared", how="nobody judged the images")
    other = sum(first[key].base_sha256 != second[key].base_sha256 for key in first)
    if other:
        how = f"{other} of {len(first)} images of the base model differ: made on another machine or by other versions"
        return Difference(outcome="not compared", how=how)
    interval = paired_interval(ours, theirs)
    if interval.low <= 0 <= interval.high:
        outcome: Outcome = "not told apart"
    else:
        outcome = "better" if (interval.value < 0) == (better == "lower") else "worse"
    equal = sum(first[key].hardened_sha256 == second[key].hardened_sha256 for key in first)
    how = f"{interval.n} pairs of images" + (f", {equal} of them equal" if equal else "")
    return Difference(outcome=outcome, interval=interval, how=how)


def paired_interval(first: Sequence[EvidenceRow], second: Sequence[EvidenceRow]) -> Interval:
    """Return the share of the second rows that show the concept less that of the first, with its interval.

    Args:
        first: judged images of one model, in any order.
        second: of the other, of the same requests.
    """
    others = {request_of(row): row for row in second}
    pairs = [_pair(row, others[request_of(row)]) for row in first]
    metric = own_metrics()["kept-accuracy"]
    return metric().measure(metric.Params.parse({"min_base": 0.0}), pairs).hardened


def request_of(row: EvidenceRow) -> tuple[object, ...]:
    """Return what was asked for, and how it was sampled."""
    return (row.concept, row.prompt, row.negative_prompt, row.seed, row.sampler, row.steps, row.guidance)


def _pair(first: EvidenceRow, second: EvidenceRow) -> Observation:
    """Return the two hardened models' images of one request, the first model's in the base model's place."""
    return Observation(
        **dict(first.pixels) | {"distance": 0.0}, base=bool(first.hardened_hit), hardened=bool(second.hardened_hit)
    )


def _by_intervals(one: Interval, other: Interval, better: Literal["lower", "higher"]) -> Difference:
    how = "by their intervals, which must not overlap"
    if other.low <= one.high and one.low <= other.high:
        return Difference(outcome="not told apart", how=how)
    lower = other.high < one.low
    return Difference(outcome="better" if lower == (better == "lower") else "worse", how=how)


def _strips(subjects: Sequence[Subject]) -> Iterator[Strip]:
    """Yield images that every report has of one request, with one image of the base model."""
    pairs = [
        {(pair.concept, pair.prompt, pair.seed, pair.base_png): pair for pair in subject.report.pairs}
        for subject in subjects
    ]
    shown: dict[str, int] = {}
    for key in pairs[0]:
        if all(key in found for found in pairs) and shown.get(key[0], 0) < PICTURES:
            shown[key[0]] = shown.get(key[0], 0) + 1
            pngs = tuple(found[key].hardened_png for found in pairs)
            yield Strip(concept=key[0], prompt=key[1], seed=key[2], base_png=key[3], pngs=pngs)
