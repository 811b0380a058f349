"""What checks will cost, and which gates cannot be decided with so few images. Nothing is generated, no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from publisher.api import (
    Anatomy,
    Check,
    CurveMetric,
    ImageRequest,
    Sampling,
    Scope,
    ScorerErrors,
    Tally,
    TrainingAttack,
    TrainingParams,
    WeightAttack,
)
from publisher.api.finds import Limits
from publisher.api.searching import WITHOUT_FLOOR, SearchAttack, SearchParams
from publisher.api.training import UNSEEN
from publisher.api.verdicts import decide
from publisher.errors import CRASHES, ModelError
from publisher.evaluate.context import MANIFEST, Tools, Unmeasured
from publisher.evaluate.images import without_concept
from publisher.evaluate.prepare import PreparedCheck, settle
from publisher.evaluate.requests import one_line
from publisher.evaluate.sheets import errors_of_sheet

MANY = 1_000_000
"""Images that stand for knowing something exactly."""
LEAST_PROMPTS = 0.1
"""Least number of prompts as a share of the images: with fewer, ``plan`` warns."""


@dataclass(frozen=True)
class Models:
    """The models that attacks by training can have as controls, besides the base model."""

    steps: tuple[str, ...] = ()
    """Ids of the steps, in their order."""
    retrained: bool = False
    """There is one that never knew the concepts."""
    untrainable: str = ""
    """Reason why attacks cannot train the base model; empty: they can."""
    anatomies: tuple[Anatomy, ...] = ()
    """Parts of the models that are trained; none while they are not on this machine."""

    def controls(self, attack: TrainingAttack[Any], params: TrainingParams) -> tuple[str, ...]:
        """Return the controls of an attack that :meth:`publisher.evaluate.context.ModelsUnderTest.control` finds.

        Raises:
            Unmeasured: one is no step.
        """
        named = attack.controls(params)
        for name in named:
            if name not in ("before", "base", "retrained", UNSEEN, *self.steps) and not params.is_masked(name):
                raise Unmeasured(f"there is no model {name!r} to compare with: no step has this id")
        return tuple(name for name in named if name != "retrained" or self.retrained)

    def distinct(self, attack: TrainingAttack[Any], params: TrainingParams, step: str) -> int:
        """Count the different models that are attacked: equal ones are trained once."""
        steps = list(self.steps)
        first = step == MANIFEST or steps[:1] == [step]
        earlier = "base" if first or step not in steps else steps[steps.index(step) - 1]
        return len({earlier if name == "before" else name for name in self.controls(attack, params)}) + 1


@dataclass(frozen=True)
class CheckPlan:
    """A check before it is made."""

    check: str
    """Id of the check."""
    samples: dict[str, int]
    """Concept -> images of each model."""
    prompts: int
    """Distinct prompts among them."""
    few_prompts: str = ""
    """Warning that few prompts are asked over and over again; empty: there are enough."""
    refused: int = 0
    """Requests that nobody may generate."""
    undecidable: str = ""
    """Reason why the verdict can only be *unknown*, in one sentence; empty: it can be decided."""
    too_few: bool = False
    """True where more images or trials would decide it."""
    trainings: int = 0
    """Trials of an attack by training, on all models together; equal ones of other checks are made once."""
    steps: int = 0
    """Training steps of all of them."""
    models: int = 2
    """Number of models that are asked."""
    controls: tuple[str, ...] = ()
    """Other models that an attack on weights alters in the same way."""
    limits: Limits | None = None
    """Most that a search spends, on all models and concepts together; None: the attack does not search."""
    seconds: float | None = None
    """Seconds that its searches take here, by what earlier ones took; None: not known, or it does not search."""
    asking: PreparedCheck | None = field(default=None, compare=False, repr=False)
    """The check with its requests; None: it trains, or cannot be measured."""


class _Lack(TypedDict):
    """Why a check cannot be decided, as :class:`CheckPlan` has it."""

    undecidable: str
    too_few: bool


def plan_check(
    check: Check, scope: Scope, tools: Tools, sampling: Sampling, models: Models | None = None, step: str = MANIFEST
) -> CheckPlan:
    """Count the images of a check, and see whether the best result that they could show would keep its gate.

    Args:
        check: of a claim.
        scope: the release's concepts.
        tools: the plugins' instances.
        sampling: how images are generated.
        models: what attacks by training compare with.
        step: id of the step that makes the claim.
    """
    try:
        found = settle(check, scope, tools, sampling, step)
        if found.searches:
            return _searches(found, models or Models(), scope)
        if found.trains:
            return _trainings(found, models or Models())
        return replace(_images(found, sampling, tools), controls=_controls(found, models or Models()))
    except Unmeasured as error:
        return CheckPlan(check.id, dict.fromkeys(check.concepts, 0), 0, undecidable=str(error))


def _images(found: PreparedCheck, sampling: Sampling, tools: Tools) -> CheckPlan:
    requests = found.asked.requests
    return CheckPlan(
        found.check.id,
        samples=dict(Counter(request.concept for request in requests)),
        prompts=len({request.prompt for request in requests}),
        few_prompts=_few_prompts(requests),
        refused=found.asked.refused,
        **_undecidable(found, len(requests), "images", _best_errors(found, sampling, tools)),
        asking=found,
    )


def _controls(found: PreparedCheck, models: Models) -> tuple[str, ...]:
    attack = found.attack
    if not isinstance(attack, WeightAttack) or not found.controlled:
        return ()
    there = {"base": attack.every_tensor, "retrained": "retrained" in attack.floors and models.retrained}
    return tuple(name for name, is_there in there.items() if is_there)


def _few_prompts(requests: Sequence[ImageRequest]) -> str:
    """Return a warning where few prompts are asked over and over: their images resemble each other."""
    prompts = {(request.concept, request.prompt) for request in requests if request.prompt}
    images = sum(bool(request.prompt) for request in requests)
    if not prompts or LEAST_PROMPTS * images <= len(prompts):
        return ""
    asked = "1 prompt" if len(prompts) == 1 else f"{len(prompts)} prompts"
    return f"{images} images of {asked} are fewer looks than n says; name more templates or prompts"


def _searches(found: PreparedCheck, models: Models, scope: Scope) -> CheckPlan:
    attack, params = found.attack, found.attack_params
    if not isinstance(attack, SearchAttack) or not isinstance(params, SearchParams):
        raise Unmeasured(f"the attack {found.check.attack!r} has no parameters of a search")
    try:
        for anatomy in models.anatomies:
            anatomy.require(attack.needs, f"the attack {found.check.attack!r}")
    except ModelError as error:
        raise Unmeasured(error.what) from error
    retrained = int("retrained" in attack.floors and models.retrained)
    counts, judged, total = {}, {}, Limits()
    for concept in found.concepts:
        kept = any(one.kind == concept.kind for one in scope.keep)
        shuffled = int("shuffled" in attack.floors and (kept or attack.shuffles == "base"))
        if not retrained + shuffled + ("input" in attack.floors):
            raise Unmeasured(WITHOUT_FLOOR.format(name=concept.id))
        counts[concept.id] = 2 + retrained + shuffled
        judged[concept.id] = (params.finds or 0) * (params.images_per_find or 0)
        for _ in range(counts[concept.id]):
            total += attack.limits(params)
    return CheckPlan(found.check.id, samples=judged, prompts=0, models=max(counts.values()), limits=total)


def _trainings(found: PreparedCheck, models: Models) -> CheckPlan:
    params = found.attack_params
    if not isinstance(params, TrainingParams) or not isinstance(found.attack, TrainingAttack):
        raise Unmeasured(f"the attack {found.check.attack!r} has no parameters of a training")
    if models.untrainable:
        raise Unmeasured(f"the attack {found.check.attack!r} trains: {models.untrainable}")
    try:
        for anatomy in models.anatomies:
            anatomy.require(found.attack.needs, f"the attack {found.check.attack!r}")
    except ModelError as error:
        raise Unmeasured(error.what) from error
    _require_readable(found, models.controls(found.attack, params))
    count = models.distinct(found.attack, params, found.step)
    asked = Counter(request.concept for request in found.asked.requests)
    trainings = count * params.seeds * len(found.concepts)
    return CheckPlan(
        found.check.id,
        samples={
            name: images_per_evaluation * params.seeds * len(params.evaluation_steps)
            for name, images_per_evaluation in asked.items()
        },
        prompts=len({request.prompt for request in found.asked.requests}),
        refused=found.asked.refused,
        **_undecidable(found, params.seeds * len(found.concepts), "trials of a model", {}),
        trainings=trainings,
        steps=trainings * params.evaluation_steps[-1],
        models=count,
    )


def _require_readable(found: PreparedCheck, controls: Sequence[str]) -> None:
    """Make sure that the metric of a check will not refuse the trials whatever they show.

    Raises:
        Unmeasured: it will, or the metric crashed.
    """
    metric = found.metric
    if not isinstance(metric, CurveMetric):
        return
    try:
        metric.require(found.metric_params, [one.id for one in found.concepts], controls)
    except ValueError as error:
        raise Unmeasured(str(error)) from error
    except CRASHES as error:  # a plugin may raise anything
        raise Unmeasured(f"the metric {found.check.metric!r} crashed: {one_line(error)}") from error


def images(plans: Iterable[CheckPlan]) -> Counter[str]:
    """Count the distinct images that all checks together need. Those of trainings are left out.

    Args:
        plans: of all checks.

    Returns:
        ``"base"``: of the base model; ``"on"`` and ``"off"``: of the hardened model with its safeguards attached
        and without, which are one and the same model where it has none; ``"altered"``: of models whose weights an
        attacker changed.
    """
    wanted: set[tuple[ImageRequest, str | tuple[str, ...]]] = set()
    for plan, found in ((plan, plan.asking) for plan in plans if plan.asking):
        plain = "on" if found.check.attached else "off"
        how = (found.check.attack, found.attack_params.model_dump_json()) if found.alters else plain
        ways: list[str | tuple[str, ...]] = ["base", how, *((*how, name) for name in plan.controls)]
        wanted |= {(without_concept(request), model) for request in found.asked.requests for model in ways}
        if found.kept:
            ways = ["base", "off", how]
            wanted |= {(without_concept(request), model) for request in found.kept.asked.requests for model in ways}
    return Counter(how if isinstance(how, str) else "altered" for _, how in wanted)


def _best_errors(found: PreparedCheck, sampling: Sampling, tools: Tools) -> dict[str, ScorerErrors]:
    """Return what would be known of the scorer's errors if it saw every concept in all images of the base model."""
    asked = Counter(request.concept for request in found.asked.requests)
    most, never = {one.id: max(asked[one.id], sampling.images) for one in found.concepts}, Tally(hits=0, n=MANY)
    best = {name: ScorerErrors(source="", seen=Tally(hits=n, n=n), false_alarms=never) for name, n in most.items()}
    sheets = {one.id: errors_of_sheet(one, tools.members(found.scorers[one.id])) for one in found.concepts}
    return best | {name: one for name, one in sheets.items() if one}


def _undecidable(found: PreparedCheck, n: int, what: str, errors: Mapping[str, ScorerErrors]) -> _Lack:
    try:
        found.metric.errors = errors if found.metric.judged else {}
        best = found.metric.best(found.metric_params, n)
    except CRASHES as error:  # a plugin may raise anything
        return {"undecidable": f"{n} {what}: {one_line(error)}", "too_few": True}
    verdict, reason = ("passed", "") if best is None else decide(found.check.gate, best)
    if verdict in ("passed", "reported"):
        return {"undecidable": "", "too_few": False}
    return {"undecidable": f"{n} {what} cannot show it, even at best: {reason}", "too_few": True}
