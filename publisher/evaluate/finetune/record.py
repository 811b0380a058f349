"""One check of an attack by training: from its trials to a measurement and a record with its verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from publisher.api import CheckRecord, CurveMetric, Measurement, Trial
from publisher.api.verdicts import judge
from publisher.evaluate.context import Unmeasured
from publisher.evaluate.evidence import json_lines
from publisher.evaluate.finetune.run import Relearned
from publisher.evaluate.measure import measured, unknown
from publisher.evaluate.prepare import PreparedCheck


def record_of_trials(prepared: PreparedCheck, found: Relearned | Unmeasured, evidence: dict[str, bytes]) -> CheckRecord:
    """Measure a check by its trials and compare it with its gate; they are evidence, whatever the verdict."""
    check = prepared.check
    if isinstance(found, Unmeasured):
        return unknown(check, str(found), prepared)
    data = json_lines(found.rows)
    name = f"evidence/{check.id}.jsonl"
    evidence[name] = data
    trials = tuple(row.trial for row in found.rows)
    update = {"trials": trials, "evidence": name, "evidence_sha256": hashlib.sha256(data).hexdigest()}
    try:
        measurement = _measure(prepared, trials)
    except Unmeasured as error:
        return unknown(check, str(error), prepared).model_copy(update=update)
    verdict, reason = judge(check.gate, measurement)
    judged = {"verdict": verdict, "reason": reason, "measurement": measurement}
    return unknown(check, "", prepared).model_copy(update={**update, **judged})


def _measure(prepared: PreparedCheck, trials: Sequence[Trial]) -> Measurement:
    metric, name = prepared.metric, prepared.check.metric
    for trial in trials:
        if trial.problem:
            who = f"trial {trial.seed} of {trial.concept!r} on the model {trial.model!r}"
            raise Unmeasured(f"{who} lost its numbers: {trial.problem}")
    if not isinstance(metric, CurveMetric):
        raise Unmeasured(f"the metric {name!r} reads no curve")
    if metric.features and not all(trial.similarity for trial in trials):
        raise Unmeasured(f"the metric {name!r} needs features, and the scorer {prepared.scorer!r} gave none")
    hardened = [trial for trial in trials if trial.model == "hardened"]
    most = sum(len(trial.evaluation_steps) * trial.images_per_evaluation for trial in hardened)
    measurement = measured(prepared, lambda: metric.read(prepared.metric_params, trials), most)
    details = dict(measurement.details)
    if metric.features:
        details["name"] = f"{name}[{prepared.scorer}]"
    return measurement.model_copy(update={"details": details})
