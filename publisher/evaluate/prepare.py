"""Everything about a check that can be settled before anything is generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from publisher.api import (
    Access,
    Attack,
    Check,
    Concept,
    CurveMetric,
    Limits,
    Metric,
    Params,
    Sampling,
    Scope,
    SearchAttack,
    SearchMetric,
    SearchParams,
    SetMetric,
    TrainingAttack,
    TrainingParams,
    WeightAttack,
)
from publisher.errors import CRASHES
from publisher.evaluate.context import Tools, Unmeasured
from publisher.evaluate.finetune.data import (
    captions_of,
    kept_prompts,
    prior_of,
    require_images,
    require_pictures,
    shown_of,
)
from publisher.evaluate.requests import Asked, ask, concepts, named, one_line, params_for, parsed
from publisher.evaluate.scorers import FEATURES, MATCH, able, judge_of

WITH_WEIGHTS = frozenset({Access.EMBEDDING, Access.ADAPTER, Access.TRAINING, Access.BASE})


@dataclass(frozen=True)
class PreparedCheck:
    """A check that can be measured if its images can be generated."""

    check: Check
    scorers: Mapping[str, str]
    """Concept's id -> id of the scorer that judges its images; empty: nobody does, and the metric needs nobody."""
    concepts: tuple[Concept, ...]
    asked: Asked
    attack: Attack[Any]
    attack_params: Params
    metric: Metric[Any]
    metric_params: Params
    step: str = ""
    """Id of the step that makes the claim."""
    kept: PreparedCheck | None = None
    """Of an attack that may break the model: the same question for what stays."""
    readers: Mapping[str, str] = field(default_factory=dict)
    """Concept's id -> id of the scorer whose features, or cosines with texts, the metric reads; empty: of none."""

    @property
    def scorer(self) -> str:
        """Ids of all scorers that judge here, for the record."""
        return ", ".join(dict.fromkeys(filter(None, self.scorers.values())))

    @property
    def needs_scorer(self) -> bool:
        """True where nothing can be said without a scorer: the metric does not read pixels alone."""
        return self.metric.judged or self.trains or bool(self.reads)

    @property
    def reads(self) -> str:
        """What the metric reads of a scorer besides judgements; empty: nothing."""
        return FEATURES if isinstance(self.metric, SetMetric) else MATCH if self.metric.matches else ""

    @property
    def trains(self) -> bool:
        """True where the attack trains: the check is measured by trials."""
        return isinstance(self.attack, TrainingAttack)

    @property
    def searches(self) -> bool:
        """True where the attack searches: the check is measured by its finds."""
        return isinstance(self.attack, SearchAttack)

    @property
    def has_weights(self) -> bool:
        """True where the attacker has the weights in hand, and attaches nothing to them."""
        reads = isinstance(self.attack, SearchAttack) and bool(self.attack.grants & WITH_WEIGHTS)
        return self.trains or self.alters or reads

    @property
    def controlled(self) -> bool:
        """True where an attack on weights has controls: its metric says how hard a concept is to get."""
        return self.alters and self.metric.resistance

    @property
    def alters(self) -> bool:
        """True where the attack changes weights before it asks."""
        return isinstance(self.attack, WeightAttack)


def settle(check: Check, scope: Scope, tools: Tools, sampling: Sampling, step: str = "") -> PreparedCheck:
    """Look up a check's plugins and collect its requests. No torch; also for ``publisher plan``.

    Raises:
        Unmeasured: an unknown name, malformed parameters, an attack that breaks its contract or does not go with the
            metric, too few trials for it, a concept that no scorer judges, or with nothing to ask for or to train on.
    """
    attack, metric = named(tools.attacks, check.attack, "attack"), named(tools.metrics, check.metric, "metric")
    _require_pair(attack, metric)
    if check.prompts and isinstance(attack, SearchAttack | TrainingAttack):
        raise Unmeasured(f"the attack {check.attack!r} finds its own prompts: it takes no 'prompts'")
    wanted = tuple(concepts(check, scope))
    judged = metric.judged or metric.matches or isinstance(attack, TrainingAttack) or isinstance(metric, SetMetric)
    prepared = PreparedCheck(
        check,
        {concept.id: judge_of(concept, check, tools, judged=judged) for concept in wanted},
        wanted,
        Asked((), 0) if isinstance(attack, SearchAttack) else ask(check, scope, tools, sampling),
        attack,
        _sized(attack, parsed(type(attack).Params, check.attack_params, "attack")),
        metric,
        parsed(type(metric).Params, check.metric_params, "metric"),
        step,
    )
    if prepared.searches and not wanted:
        raise Unmeasured("the check names no concept, so nothing is searched for: list ids under its 'concepts'")
    if prepared.reads:
        prepared = replace(prepared, readers=_readers(prepared, tools))
    if prepared.controlled and isinstance(attack, WeightAttack) and attack.may_break:
        prepared = replace(prepared, kept=_kept(check, scope, tools, sampling))
    params = prepared.attack_params
    if isinstance(attack, SearchAttack) and isinstance(params, SearchParams):
        _require_input(attack, params, wanted, scope)
    if isinstance(attack, TrainingAttack) and isinstance(params, TrainingParams):
        if isinstance(metric, CurveMetric) and params.seeds < metric.least_trials:
            asked = f"{metric.least_trials} trials, and there are {params.seeds}"
            raise Unmeasured(f"the metric {check.metric!r} needs {asked}")
        for concept in prepared.concepts:
            suited = params_for(params, concept, scope)
            captions_of(attack, suited, concept, scope)
            prior_of(attack, suited, concept, scope)
            require_images(shown_of(suited, concept, scope), suited)
    return prepared


def _kept(check: Check, scope: Scope, tools: Tools, sampling: Sampling) -> PreparedCheck | None:
    """Return the check as it would be of what stays, of the kinds that it is about; None: nothing of them stays."""
    kinds = {one.kind for one in concepts(check, scope)}
    kept = tuple(one.id for one in scope.keep if one.kind in kinds and one.id not in check.concepts)
    about = check.model_copy(update={"concepts": kept, "prompts": (), "gate": None})
    return replace(settle(about, scope, tools, sampling), kept=None) if kept else None


def _require_input(attack: SearchAttack[Any], params: SearchParams, wanted: Sequence[Concept], scope: Scope) -> None:
    """Make sure that there is what a search begins from, and what says how much that shows by itself.

    Raises:
        Unmeasured: the attacker's half of a concept's images is too small, or nothing else is kept.
    """
    try:
        count = attack.pictures(params)
    except CRASHES as error:  # a plugin may raise anything; its check becomes unknown
        raise Unmeasured(f"the attack {attack.name!r} crashed: {one_line(error)}") from error
    for concept in wanted:
        require_pictures(concept, count)
        if "input" in attack.floors:
            kept_prompts(scope, concept)


def _readers(prepared: PreparedCheck, tools: Tools) -> dict[str, str]:
    """Return concept's id -> id of the scorer that a metric reads more of than judgements.

    Raises:
        Unmeasured: it has no such thing, or features of several scorers would be compared.
    """
    what, metric = prepared.reads, prepared.check.metric
    found = {name: able(what, tools.members(judge)) for name, judge in prepared.scorers.items()}
    for name, scorer in found.items():
        if not scorer:
            has = "features" if what == FEATURES else "cosines with texts"
            raise Unmeasured(f"the metric {metric!r} needs {has}, and the scorer {prepared.scorers[name]!r} gives none")
    if what == FEATURES and len(set(found.values())) > 1:
        scorers = ", ".join(sorted(set(found.values())))
        raise Unmeasured(f"the metric {metric!r} compares features, and those of {scorers} do not go together")
    return found


def _sized(attack: Attack[Any], params: Params) -> Params:
    """Return the parameters of an attack, those of a search with the numbers of its budget.

    Raises:
        Unmeasured: the attack crashed, or its budget is nothing.
    """
    if not isinstance(attack, SearchAttack) or not isinstance(params, SearchParams):
        return params
    try:
        sized: Params = attack.sized(params)
        limits = attack.limits(sized)
    except CRASHES as error:  # a plugin may raise anything; its check becomes unknown
        raise Unmeasured(f"the attack {attack.name!r} crashed: {one_line(error)}") from error
    if limits == Limits():
        raise Unmeasured(f"the attack {attack.name!r} has a budget of nothing: it can find nothing")
    return sized


def _require_pair(attack: Attack[Any], metric: Metric[Any]) -> None:
    trains, reads = isinstance(attack, TrainingAttack), isinstance(metric, CurveMetric)
    if trains and not reads:
        raise Unmeasured(f"the attack {attack.name!r} trains, and the metric {metric.name!r} reads no curve")
    searches, finds = isinstance(attack, SearchAttack), isinstance(metric, SearchMetric)
    if searches and not finds:
        raise Unmeasured(f"the attack {attack.name!r} searches, and the metric {metric.name!r} reads no finds")
    if finds and not searches:
        raise Unmeasured(f"the metric {metric.name!r} reads finds, and the attack {attack.name!r} does not search")
    if reads and not trains:
        raise Unmeasured(f"the metric {metric.name!r} reads curves, and the attack {attack.name!r} does not train")
