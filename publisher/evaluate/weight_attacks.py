"""Checks of attacks that change weights: what the attacker has made is asked, and so are controls.

A cast can bring nothing back that the same cast of a model without the concept does not show, and a broken model is no
break. So the base model and the retrained reference are altered in the same way, and what stays is asked for before and
after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from publisher.api import CheckRecord, ImageRequest, Interval, Scope, ScorerErrors, WeightAttack
from publisher.api.records import Control
from publisher.api.verdicts import lower
from publisher.api.weight_controls import control_file, losses_by_controls, share_of_kept
from publisher.evaluate.altering import altered, fault_of
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, Setting, Tools, Unmeasured
from publisher.evaluate.evidence import json_lines
from publisher.evaluate.images import sampler_of
from publisher.evaluate.measure import Observed, measure_rows, rows_of
from publisher.evaluate.observe import Observations, observe
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.scorers import Task

Tasks = Callable[[Sequence[PreparedCheck]], Mapping[ImageRequest, set[Task]]]


@dataclass(frozen=True)
class Attacked:
    """What was seen of one altered model and of its controls, for all checks that ask."""

    views: Observations
    sampler: str
    """Name of the hardened model's sampler."""
    controls: Mapping[Control, Observations] = field(default_factory=dict)
    fault: str = ""
    """Fault that the attack found in the tensors themselves; empty: none."""


def observe_altered(
    group: Sequence[PreparedCheck],
    tasks: Tasks,
    scope: Scope,
    models: ModelsUnderTest,
    tools: Tools,
    setting: Setting,
) -> Attacked:
    """Return what is seen of models that were altered in one way, one after the other.

    Args:
        group: checks of one attack with equal parameters.
        tasks: says what scorers have to do with the images of some checks.
        scope: the release's concepts.
        models: the base model, the hardened one, and a retrained reference if there is one.
        tools: the scorers and the executor.
        setting: device, store, and where altered models lie.

    Raises:
        Unmeasured: the attack crashed or broke its contract, or the two models have different tensors.
    """
    attack, params = group[0].attack, group[0].attack_params

    def see(model: ModelUnderTest, checks: Sequence[PreparedCheck], *, alters: bool = True) -> Observations:
        wanted = [(request, item.check.attached) for item in checks for request in item.asked.requests]
        if not alters:
            return observe(wanted, scope, ModelsUnderTest(models.base, model), tools, setting, tasks=tasks(checks))
        with altered(attack, params, model, models.base, setting) as made:
            return observe(wanted, scope, ModelsUnderTest(models.base, made), tools, setting, tasks=tasks(checks))

    kept = [item.kept for item in group if item.kept]
    views = see(models.hardened, [*group, *kept])
    fault = fault_of(attack, params)
    mine = [item for item in group if item.controlled]
    controls: dict[Control, Observations] = {}
    if mine and isinstance(attack, WeightAttack):
        if attack.every_tensor:
            controls["base"] = see(models.base, mine)
        if "retrained" in attack.floors and models.retrained:
            controls["retrained"] = see(models.retrained, mine)
    if kept:
        controls |= {"kept before": see(models.hardened.bare, kept, alters=False), "kept": views}
    return Attacked(views, sampler_of(models.hardened.folder), controls, fault)


def with_fault(record: CheckRecord, fault: str) -> CheckRecord:
    """Return the record of a check, *failed* where it has a gate and the attack found a fault in the tensors."""
    if not fault or record.gate is None:
        return record
    reason = f"{fault}; {record.reason}" if record.verdict == "failed" else fault
    return record.model_copy(update={"verdict": "failed", "reason": reason})


def with_controls(
    prepared: PreparedCheck,
    record: CheckRecord,
    attacked: Attacked,
    errors: Mapping[str, ScorerErrors],
    scope: Scope,
    evidence: dict[str, bytes],
) -> CheckRecord:
    """Return the record of a check with its controls, *unknown* where they take away what its number says.

    A gate that failed stays failed.

    Args:
        prepared: the check.
        record: of the check, without controls.
        attacked: what was seen.
        errors: of its scorer, for each concept.
        scope: the release's concepts.
        evidence: file -> content; gets one more for each control.
    """
    if record.measurement is None or not prepared.controlled:
        return record
    found: dict[Control, Interval] = {}
    try:
        for name, views in attacked.controls.items():
            asked = prepared.kept if name.startswith("kept") else prepared
            if asked is None:
                continue
            rows = rows_of(asked, Observed(scope, views, attacked.sampler))
            if isinstance(rows, Unmeasured):
                raise rows
            evidence[control_file(record.id, name)] = json_lines(rows)
            whole = measure_rows(prepared, rows, errors, scope).hardened if asked is prepared else None
            found[name] = whole or share_of_kept(rows, scope)
    except Unmeasured as error:
        taken = f"a control was not measured: {error}"
    else:
        taken = "; ".join(losses_by_controls(record, found))
    record = record.model_copy(update={"controls": found})
    if not taken or record.verdict == "failed":
        return record
    return record.model_copy(update={"verdict": lower(record.verdict, "unknown"), "reason": taken})
