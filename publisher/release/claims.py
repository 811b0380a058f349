"""The claims of a release: every step's with the manifest's gates, and equal ones of several steps as one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from publisher.api import Binding, Check, Claim, Gate, SearchAttack, TrainingAttack
from publisher.api.claims import erased, strictest
from publisher.engine.plan import PlannedStep
from publisher.errors import UsageError
from publisher.evaluate.context import MANIFEST, StepClaim
from publisher.manifest.resolve import RED_TEAM, Resolved
from publisher.program import command
from publisher.registry import Registry

OWN_CHECKS = Claim(
    id="manifest.checks",
    sentence="the manifest's own checks hold",
    binds="in-weights",
    limits=("says what its checks measure, and nothing about how it was reached",),
)
SUITE = Claim(
    id=RED_TEAM,
    sentence="what attacks that search found is reported",
    binds="in-weights",
    limits=("promises nothing: what a search did not find within its budget, others may find.",),
    discloses=True,
)
AS_IT_IS = (
    "The model was tested as it is; how it was made is not known here.",
    "Other words, other languages, weighted or very long prompts and learned embeddings are not covered.",
    "Image-to-image, adapters (LoRA, IP-Adapter) and fine-tuning are not covered.",
)
"""Limits of claims about a model that another party made."""
_WEAKEST_FIRST: tuple[Binding, ...] = ("by-convention", "in-pipeline", "in-weights")


def collect_claims(resolved: Resolved, steps: Iterable[PlannedStep], registry: Registry) -> list[StepClaim]:
    """Return every claim of the release: the steps' with the manifest's gates, then the manifest's own checks.

    Claims of several steps with one sentence and the same checks are one. It has no step in its id, the weakest
    binding, all limits, and of each bound the strictest. ``evaluate.gates`` may name a step's check
    (``erase.kept``), which is that step's share, or the one check (``kept``), which is the last word.

    Raises:
        UsageError: ``evaluate.gates`` names a check that does not exist.
    """
    gates = resolved.evaluate.gates
    made = [StepClaim((step.identity.id,), claim) for step in steps for claim in step.claims]
    claims = _merged([StepClaim(item.steps, _with_gates(item.claim, gates)) for item in made], resolved, registry)
    claims += [StepClaim((MANIFEST,), claim) for claim in _manifests_own(resolved)]
    _require_known(gates, [*made, *claims])
    return [StepClaim(item.steps, _with_gates(item.claim, gates)) for item in claims]


def claims_of_concepts(resolved: Resolved) -> list[StepClaim]:
    """Return the claims of an eraser about all concepts to go, then the manifest's own checks, with its gates.

    Nothing is known of how the model came to be, so ``MANIFEST`` stands where a step's id would.

    Raises:
        UsageError: ``evaluate.gates`` names a check that does not exist.
    """
    made = list(erased(resolved.scope.concepts, resolved.scope, binds="in-weights", limits=AS_IT_IS))
    made += _manifests_own(resolved)
    claims = [StepClaim((MANIFEST,), _with_gates(claim, resolved.evaluate.gates)) for claim in made]
    _require_known(resolved.evaluate.gates, claims)
    return claims


def _manifests_own(resolved: Resolved) -> Iterator[Claim]:
    """Yield the claims of the manifest's own checks and of its red team, each if there is one.

    A check that stands in for one of the suite belongs to the suite: without a gate it promises nothing either.
    """
    own, suite = resolved.evaluate.checks, resolved.evaluate.red_team
    instead = [check for check in own if suite and check.id.startswith(f"{RED_TEAM}.")]
    for claim, checks in ((OWN_CHECKS, [check for check in own if check not in instead]), (SUITE, [*suite, *instead])):
        if checks:
            yield claim.model_copy(update={"checks": tuple(checks)})


def _require_known(gates: Mapping[str, Gate], claims: Sequence[StepClaim]) -> None:
    ids = [name for item in claims for name in (item.claim.id, *(check.id for check in item.claim.checks))]
    for name in gates:
        if name not in ids:
            near = difflib.get_close_matches(name, ids, 1)
            hint = (f"Did you mean {near[0]!r}?\n" if near else "") + f"See all checks with: {command('plan MANIFEST')}"
            raise UsageError(f"evaluate.gates names the check {name!r}, which no step makes", hint=hint)


def _with_gates(claim: Claim, gates: Mapping[str, Gate]) -> Claim:
    checks = [check.model_copy(update={"gate": gates.get(check.id, check.gate)}) for check in claim.checks]
    return claim.model_copy(update={"checks": tuple(checks)})


def _merged(claims: Sequence[StepClaim], resolved: Resolved, registry: Registry) -> list[StepClaim]:
    """Return the claims with equal ones as one, at the place of the first."""
    groups: dict[object, list[StepClaim]] = {}
    for place, item in enumerate(claims):
        checks = tuple(_tested(check, registry) for check in item.claim.checks)
        key = (item.claim.sentence, checks) if checks and "" not in checks else place
        groups.setdefault(key, []).append(item)
    taken = {one.id for claim in _manifests_own(resolved) for one in claim.checks} | {
        name for item in claims for name in _ids(item.claim)
    }
    found: list[StepClaim] = []
    for group in groups.values():
        several = len({item.step for item in group}) > 1
        found += [_one(group, taken)] if several else group
        taken |= _ids(found[-1].claim)
    return found


def _ids(claim: Claim) -> set[str]:
    return {claim.id, *(check.id for check in claim.checks)}


def _tested(check: Check, registry: Registry) -> str:
    """Return what a check measures, as text to compare; empty where it is about its own step alone.

    An attack that trains compares with the model before the step; one that searches has its own controls. Where
    neither what is asked nor what is read depends on the concept, it does not matter which one the check names.
    """
    attack = registry.get("attack", check.attack).cls if check.attack in registry.names("attack") else None
    metric = registry.get("metric", check.metric).cls if check.metric in registry.names("metric") else None
    if attack is None or metric is None or issubclass(attack, TrainingAttack | SearchAttack):
        return ""
    blind = not attack.names_concept and not metric.judged
    return check.model_copy(update={"id": "x", "gate": None, **({"concepts": ()} if blind else {})}).model_dump_json()


def _one(group: Sequence[StepClaim], taken: set[str]) -> StepClaim:
    """Return one claim in place of equal ones; its ids lose the step where nothing else has the shorter ids."""
    first, claims = group[0], [item.claim for item in group]
    checks = [
        same[0].model_copy(update={"gate": strictest(check.gate for check in same)})
        for same in zip(*(claim.checks for claim in claims), strict=True)
    ]
    short = {name: name.removeprefix(f"{first.step}.") for name in _ids(first.claim)}
    if taken & set(short.values()):
        short = {name: name for name in short}
    merged = first.claim.model_copy(
        update={
            "id": short[first.claim.id],
            "binds": min((claim.binds for claim in claims), key=_WEAKEST_FIRST.index),
            "limits": tuple(dict.fromkeys(limit for claim in claims for limit in claim.limits)),
            "checks": tuple(check.model_copy(update={"id": short[check.id]}) for check in checks),
        }
    )
    return StepClaim(tuple(dict.fromkeys(item.step for item in group)), merged)
