"""One check: from what was generated to observations, a measurement, and a record with its verdict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from publisher.api import (
    Check,
    CheckRecord,
    Concept,
    ImageRequest,
    Judgement,
    Measurement,
    Scope,
    ScorerErrors,
    SetMetric,
)
from publisher.api.base_errors import errors_of
from publisher.api.evidence import EvidenceRow, hits, observations, with_unsure
from publisher.api.verdicts import judge
from publisher.errors import CRASHES
from publisher.evaluate.context import Tools, Unmeasured
from publisher.evaluate.evidence import json_lines
from publisher.evaluate.images import without_concept
from publisher.evaluate.observe import Observations, Seen
from publisher.evaluate.permeabilities import Permeabilities
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.requests import one_line
from publisher.evaluate.scorers import MATCH, both_judged, require_kind
from publisher.evaluate.sheets import errors_of_sheet

if TYPE_CHECKING:
    from publisher.api.metrics import Array


@dataclass(frozen=True)
class Observed:
    """What a check is measured with once everything is generated."""

    scope: Scope
    seen: Observations
    sampler: str


def rows_of(prepared: PreparedCheck, observed: Observed) -> list[EvidenceRow] | Unmeasured:
    """Return the lines of a check's evidence, or why there are none."""
    try:
        return [_row(request, prepared, observed) for request in prepared.asked.requests]
    except Unmeasured as error:
        return error


def errors_about(
    prepared: PreparedCheck,
    rows: Mapping[str, Sequence[EvidenceRow]],
    judges: Mapping[str, str],
    scope: Scope,
    tools: Tools,
) -> dict[str, ScorerErrors]:
    """Return what is known of the scorer's errors about each concept of a check.

    Args:
        prepared: the check.
        rows: check's id -> its lines.
        judges: check's id -> the scorers that judged it.
        scope: the release's concepts.
        tools: the scorers, with their calibration sheets.
    """
    name = prepared.check.id
    alike = [row for other, some in rows.items() if judges[other] == judges[name] for row in some]
    sheets = {one.id: errors_of_sheet(one, tools.members(prepared.scorers[one.id])) for one in prepared.concepts}
    return errors_of(prepared.concepts, rows[name], alike, scope, {of: one for of, one in sheets.items() if one})


def record_of(
    prepared: PreparedCheck,
    rows: Sequence[EvidenceRow],
    errors: Mapping[str, ScorerErrors],
    scope: Scope,
    evidence: dict[str, bytes],
    vectors: tuple[Array, Array] | Unmeasured | None = None,
) -> CheckRecord:
    """Measure a check and compare it with its gate; its rows are added to ``evidence``, whatever the verdict.

    Args:
        prepared: the check.
        rows: lines of its evidence.
        errors: of its scorer, for each concept.
        scope: the release's concepts.
        evidence: file -> content; gets one more.
        vectors: features of both models' images, or why there are none; None: the metric compares none.
    """
    check = prepared.check
    data = json_lines(rows)
    name = f"evidence/{check.id}.jsonl"
    evidence[name] = data
    try:
        measurement = measure_rows(prepared, rows, errors, scope, vectors)
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


def _row(request: ImageRequest, prepared: PreparedCheck, observed: Observed) -> EvidenceRow:
    key = (without_concept(request), prepared.check.attached)
    if key not in observed.seen.seen:
        raise Unmeasured(observed.seen.problems.get(key, "an image is missing"))
    observation = observed.seen.seen[key]
    concept = observed.scope.concept(request.concept)
    base, hardened = _judgements(prepared, concept, observation)
    base_hit, hardened_hit = hits(base, hardened, concept, prepared.metric.better)
    base_match, hardened_match = _read(prepared, request, observation) if prepared.reads == MATCH else (None, None)
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
        base_match=base_match,
        hardened_match=hardened_match,
        membranes=prepared.check.membranes,
        permeabilities=_permeabilities(request.prompt, prepared.check, observed.seen.permeabilities),
    )


def _read(prepared: PreparedCheck, request: ImageRequest, seen: Seen) -> tuple[Any, Any]:
    """Return what the metric reads besides judgements, of the base and of the hardened image."""
    said = seen.read.get((prepared.readers[request.concept], prepared.reads), "nobody read the images")
    if isinstance(said, str):
        raise Unmeasured(said)
    return said


def vectors_of(prepared: PreparedCheck, seen: Observations) -> tuple[Array, Array] | Unmeasured:
    """Return the features of the base model's and of the hardened model's images, or why there are none.

    Each is ``(n, d)``, of length 1. They are compared, and never stored.
    """
    import numpy as np

    try:
        keys = [(request, (without_concept(request), prepared.check.attached)) for request in prepared.asked.requests]
        pairs = [_read(prepared, request, seen.seen[key]) for request, key in keys if key in seen.seen]
    except Unmeasured as error:
        return error
    if len(pairs) < len(keys):
        return Unmeasured("an image is missing")
    base, hardened = (np.stack([pair[i].double().numpy() for pair in pairs]) for i in (0, 1))
    before, after = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (base, hardened))
    return before, after


def _judgements(
    prepared: PreparedCheck, concept: Concept, seen: Seen
) -> tuple[Judgement, Judgement] | tuple[None, None]:
    """Return what the concept's scorer says of both images; nothing where the metric reads pixels alone."""
    name = prepared.scorers[concept.id]
    try:
        said = both_judged(name, seen.judgements) if name else "nobody judged it"
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


def measure_rows(
    prepared: PreparedCheck,
    rows: Sequence[EvidenceRow],
    errors: Mapping[str, ScorerErrors],
    scope: Scope,
    vectors: tuple[Array, Array] | Unmeasured | None = None,
) -> Measurement:
    """Return what a check's metric says of some lines of evidence; parameters as of :func:`record_of`.

    Raises:
        Unmeasured: too little was observed, or the metric breaks its contract.
    """
    metric, params = prepared.metric, prepared.metric_params
    metric.errors = errors if metric.judged else {}
    told = observations(rows, judged=metric.judged)
    if isinstance(metric, SetMetric):
        if vectors is None or isinstance(vectors, Unmeasured):
            raise vectors or Unmeasured(f"the metric {metric.name!r} needs features")
        found = measured(prepared, lambda: metric.compare(params, told, *vectors), len(rows))
        named = {**found.details, "name": f"{prepared.check.metric}[{next(iter(prepared.readers.values()))}]"}
        return found.model_copy(update={"details": named})
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
