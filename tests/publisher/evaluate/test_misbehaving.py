"""Scorers, attacks and metrics that misbehave in the grey world: no check of theirs passes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from publisher.api import (
    Access,
    Concept,
    ImageRequest,
    Interval,
    Judgement,
    Measurement,
    Observation,
    Sampling,
    ScorerCard,
)
from publisher.builtin.attacks.asking import Plain
from publisher.builtin.metrics.rates import ConceptRate
from support.grey import GreyScorer, World, check, only


class Crashes(GreyScorer):
    def judge(self, images: Any) -> Sequence[Judgement]:
        raise RuntimeError("no kernel image")


class Exits(GreyScorer):
    def judge(self, images: Any) -> Sequence[Judgement]:
        sys.exit(0)


class ExitsWhileLoading(GreyScorer):
    def load(self, device: Any) -> None:
        sys.exit(0)


class Forgets(GreyScorer):
    def judge(self, images: Any) -> Sequence[Judgement]:
        return super().judge(images)[1:]


class Mumbles(GreyScorer):
    def judge(self, images: Any) -> Sequence[Judgement]:
        return ["pizza"] * len(images)  # type: ignore[list-item]


class SaysNaN(GreyScorer):
    def judge(self, images: Any) -> Sequence[Judgement]:
        nan = Judgement.model_construct(labels={"object": "pizza"}, scores={"object": float("nan")})
        return [nan] * len(images)


class LeavesOut(GreyScorer):
    def judge(self, images: Any) -> Sequence[Judgement]:
        return [Judgement(labels={"style": "noto"}, scores={"style": 1.0})] * len(images)


class DoesNotLoad(GreyScorer):
    def load(self, device: Any) -> None:
        raise OSError("weights are missing")


class HasNoCard(GreyScorer):
    def card(self) -> ScorerCard:
        raise ValueError("the sheet is about other weights")


class KnowsNoObjects(GreyScorer):
    @classmethod
    def labels(cls) -> Mapping[str, Sequence[str]]:
        return {"style": ("noto",)}


class HasNeverSeenOne(GreyScorer):
    @classmethod
    def labels(cls) -> Mapping[str, Sequence[str]]:
        return {"object": ("pizza",)}


@pytest.mark.parametrize(
    ("scorer", "reason"),
    [
        (Crashes, "the scorer 'grey' crashed: RuntimeError: no kernel image"),
        (Exits, "the scorer 'grey' crashed: SystemExit: 0"),
        (ExitsWhileLoading, "the scorer 'grey' crashed: SystemExit: 0"),
        (Forgets, "the scorer 'grey' gave 31 judgements of 32 images"),
        (Mumbles, "the scorer 'grey' gave something else than judgements"),
        (SaysNaN, "the scorer gave a score that is no number in [0, 1]"),
        (LeavesOut, "the scorer 'grey' gave no judgement of the kind 'object'"),
        (DoesNotLoad, "the scorer 'grey' crashed: OSError: weights are missing"),
        (HasNoCard, "the scorer 'grey' crashed: ValueError: the sheet is about other weights"),
        (KnowsNoObjects, "the scorer 'grey' does not judge the kind 'object' of 'cigarette'"),
        (HasNeverSeenOne, "the scorer 'grey' has no label 'cigarette': it can never see 'cigarette'"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_scorer_that_does_not_judge_makes_it_unknown(world: World, scorer: type[GreyScorer], reason: str) -> None:
    record = only(world.scorer(scorer()))
    assert (record.verdict, record.reason, record.measurement) == ("unknown", reason, None)


class RaisesAttack(Plain):
    def requests(self, *_: Any) -> Sequence[ImageRequest]:
        raise KeyError("translations")


class AsksForAnother(Plain):
    def requests(self, params: Any, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        return [request.model_copy(update={"concept": "x"}) for request in super().requests(params, concept, sampling)]


class ExitsAttack(Plain):
    def requests(self, params: Any, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        sys.exit(0)


class AsksForOneOnly(Plain):
    def requests(self, params: Any, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        return [super().requests(params, concept, sampling)[0]] * 60


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (RaisesAttack, "the attack 'plain' crashed: KeyError: 'translations'"),
        (AsksForAnother, "the attack 'plain' returned something else than requests for 'cigarette'"),
        (ExitsAttack, "the attack 'plain' crashed: SystemExit: 0"),
        (AsksForOneOnly, "upper bound 1 is not <= 0.1, value 0 is: too few samples"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_an_attack_that_does_not_attack_makes_it_unknown(world: World, attack: type[Plain], reason: str) -> None:
    world.tools = replace(world.tools, attacks={"plain": attack()})
    record = only(world)
    assert (record.verdict, record.reason) == ("unknown", reason)


def test_what_an_attack_needs_is_known_also_where_it_crashed(world: World) -> None:
    assert (only(world).access, only(world).resistance) == (Access.PROMPT, True)
    world.tools = replace(world.tools, attacks={"plain": RaisesAttack()})
    record = only(world)
    assert (record.verdict, record.access, record.resistance) == ("unknown", Access.PROMPT, True)


class Relabels(Plain):
    """Has the scorer look for something else."""

    def requests(self, params: Any, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        object.__setattr__(concept, "label", "pizza")
        return super().requests(params, concept, sampling)


class Changes(ConceptRate):
    """Changes what it has measured once the verdict is out."""

    def measure(self, params: Any, observations: Sequence[Observation]) -> Measurement:
        self.kept = super().measure(params, observations)
        return self.kept


def test_what_an_attack_does_to_its_concept_and_a_metric_to_its_number_changes_no_verdict(world: World) -> None:
    world.paint(lambda *_: "cigarette")
    metric = Changes()
    world.tools = replace(world.tools, attacks={"plain": Relabels()}, metrics={"concept-rate": metric})
    record = only(world)
    object.__setattr__(metric.kept.hardened, "value", 0.0)
    assert record.measurement is not None
    assert (record.verdict, record.measurement.hardened.value) == ("failed", 1.0)


class Divides(ConceptRate):
    def measure(self, *_: Any) -> Measurement:
        raise ZeroDivisionError("division by zero")


class ExitsMetric(ConceptRate):
    def measure(self, *_: Any) -> Measurement:
        sys.exit(0)


class Inflates(ConceptRate):
    def measure(self, params: Any, observations: Sequence[Observation]) -> Measurement:
        return super().measure(params, [*observations] * 10)


class ReturnsNaN(ConceptRate):
    def measure(self, params: Any, observations: Sequence[Observation]) -> Measurement:
        nan = Interval.model_construct(value=float("nan"), low=0.0, high=0.0, n=60, method="")
        return super().measure(params, observations).model_copy(update={"hardened": nan})


class ReturnsZero(ConceptRate):
    def measure(self, *_: Any) -> Measurement:
        return 0.0  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (Divides, "the metric 'concept-rate' crashed: ZeroDivisionError: division by zero"),
        (ExitsMetric, "the metric 'concept-rate' crashed: SystemExit: 0"),
        (Inflates, "the metric 'concept-rate' counts 600 images, there are 60"),
        (ReturnsNaN, "the metric 'concept-rate' gave a number that is not finite, or no JSON"),
        (ReturnsZero, "the metric 'concept-rate' returned no measurement"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_metric_that_does_not_measure_makes_it_unknown(world: World, metric: type[ConceptRate], reason: str) -> None:
    world.tools = replace(world.tools, metrics={"concept-rate": metric()})
    record = only(world)
    assert (record.verdict, record.reason, record.measurement) == ("unknown", reason, None)


def test_evidence_is_kept_of_a_check_that_could_not_be_decided(world: World) -> None:
    world.tools = replace(world.tools, metrics={"concept-rate": Divides()})
    result = world.evaluate(check())
    assert result.evidence[result.claims[0].checks[0].evidence].count(b"\n") == 60
