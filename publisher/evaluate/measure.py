"""One check: from what was generated to observations, a measurement, and a record with its verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from publisher.api import Check, CheckRecord, Concept, ImageRequest, Judgement, Measurement, Scope
from publisher.api.evidence import EvidenceRow, hits, observations, with_unsure
from publisher.api.verdicts import judge
from publisher.errors import CRASHES
from publisher.evaluate.context import Unmeasured
from publisher.evaluate.evidence import json_lines
from publisher.evaluate.images import without_concept
from publisher.evaluate.observe import Observations, Seen
from publisher.evaluate.permeabilities import Permeabilities
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.requests import one_line
from publisher.evaluate.scorers import require_kind


@dataclass(frozen=True)
class Observed:
    """What a check is measured with once everything is generated."""

    scope: Scope
    seen: Observations
    sampler: str


def record_of(prepared: PreparedCheck, observed: Observed, evidence: dict[str, bytes]) -> CheckRecord:
    """Measure a check and compare it with its gate; its rows are added to ``evidence``, whatever the verdict."""
    check = prepared.check
    try:
        rows = _rows(prepared, observed)
    except Unmeasured as error:
        return unknown(check, str(error), prepared)
    data = json_lines(rows)
    name = f"evidence/{check.id}.jsonl"
    evidence[name] = data
    try:
        measurement = _measure(prepared, rows, observed.scope)
    except Unmeasured as error:
        record = unknown(check, str(error), prepared)
    else:
        verdict, reason = judge(check.gate, measurement)
        update = {"verdict": verdict, "reason": reason, "measurement": measurement}
        record = unknown(check, "", prepared).model_copy(update=update)
    return record.model_copy(update={"evidence": name, "evidence_sha256": hashlib.sha256(data).hexdigest()})


def unknown(check: Check, reason: str, prepared: PreparedCheck | None = None) -> CheckRecord:
    """Return the record of a check that was not measured, or not yet."""
    return CheckRecord(
        id=check.id,
        attack=check.attack,
        attack_params=prepared.attack_params.as_json() if prepared else check.attack_params,
        scorer=prepared.scorer if prepared else check.scorer,
        metric=check.metric,
        metric_params=prepared.metric_params.as_json() if prepared else check.metric_params,
        unit=prepared.metric.unit if prepared else "",
        better=prepared.metric.better if prepared else "lower",
        concept_figure=prepared.metric.concept_figure if prepared else "",
        concept_unit=prepared.metric.concept_unit if prepared else "",
        concepts=check.concepts,
        gate=check.gate,
        membranes=check.membranes,
        verdict="unknown",
        reason=reason,
    )


def _rows(prepared: PreparedCheck, observed: Observed) -> list[EvidenceRow]:
    return [_row(request, prepared, observed) for request in prepared.asked.requests]


def _row(request: ImageRequest, prepared: PreparedCheck, observed: Observed) -> EvidenceRow:
    key = (without_concept(request), prepared.check.attached)
    if key not in observed.seen.seen:
        raise Unmeasured(observed.seen.problems.get(key, "an image is missing"))
    observation = observed.seen.seen[key]
    concept = observed.scope.concept(request.concept)
    base, hardened = _judgements(prepared, concept, observation)
    base_hit, hardened_hit = hits(base, hardened, concept, prepared.metric.better)
    return EvidenceRow(
        check=prepared.check.id,
        **request.model_dump(),
        sampler=observed.sampler,
        base=base,
        hardened=hardened,
        base_hit=base_hit,
        hardened_hit=hardened_hit,
        base_sha256=observation.base_sha256,
        hardened_sha256=observation.hardened_sha256,
        distance=observation.distance,
        membranes=prepared.check.membranes,
        permeabilities=_permeabilities(request.prompt, prepared.check, observed.seen.permeabilities),
    )


def _judgements(
    prepared: PreparedCheck, concept: Concept, seen: Seen
) -> tuple[Judgement, Judgement] | tuple[None, None]:
    """Return what the concept's scorer says of both images; nothing where the metric reads pixels alone."""
    name = prepared.scorers[concept.id]
    try:
        said = seen.judgements[name] if name else "nobody judged it"
        if isinstance(said, str):
            raise Unmeasured(said)  # noqa: TRY301
        require_kind(name, said, concept)
    except Unmeasured:
        if prepared.metric.judged:
            raise
        return None, None
    return said


def _permeabilities(prompt: str, check: Check, permeabilities: Permeabilities | None) -> dict[str, float] | None:
    if permeabilities is None or not check.attached:
        return None
    if permeabilities.problem:
        raise Unmeasured(f"nobody knows how far the prompts let the safeguards act: {permeabilities.problem}")
    return dict(zip(permeabilities.concepts, permeabilities.rows[prompt], strict=True))


def _measure(prepared: PreparedCheck, rows: Sequence[EvidenceRow], scope: Scope) -> Measurement:
    metric, params = prepared.metric, prepared.metric_params
    told = observations(rows, judged=metric.judged)
    found = measured(prepared, lambda: metric.measure(params, told), len(rows))
    return with_unsure(found, rows, scope) if metric.judged else found


def measured(prepared: PreparedCheck, measure: Callable[[], Measurement], most: int) -> Measurement:
    """Call a metric and check what it says.

    Args:
        prepared: the check.
        measure: the call.
        most: observations that it can have counted.

    Raises:
        Unmeasured: too little was observed, or the metric breaks its contract.
    """
    name = prepared.check.metric
    try:
        measurement = measure()
    except ValueError as error:
        raise Unmeasured(str(error)) from error
    except CRASHES as error:  # a plugin may raise anything
        raise Unmeasured(f"the metric {name!r} crashed: {one_line(error)}") from error
    if not isinstance(measurement, Measurement):
        raise Unmeasured(f"the metric {name!r} returned no measurement")
    measurement = _sound(name, measurement)
    if measurement.hardened.n > most:
        raise Unmeasured(f"the metric {name!r} counts {measurement.hardened.n} images, there are {most}")
    if prepared.asked.refused:
        details = {**measurement.details, "refused_prompts": prepared.asked.refused}
        return measurement.model_copy(update={"details": details})
    return measurement


def _sound(name: str, measurement: Measurement) -> Measurement:
    """Return a validated copy: a plugin can build a record past the validation, or change it later."""
    try:
        return Measurement.parse(json.loads(json.dumps(measurement.model_dump(), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise Unmeasured(f"the metric {name!r} gave a number that is not finite, or no JSON") from error
