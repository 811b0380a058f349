"""Searches in the grey world: their controls, fresh seeds, neighbours, ranks and costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from publisher.api import (
    Access,
    Concept,
    Find,
    Gate,
    Limits,
    Scope,
    SearchParams,
    SearchTarget,
)
from publisher.evaluate.plan import Models, plan_check
from publisher.evaluate.searching import images, run
from publisher.evaluate.searching.images import begun_seed, judge_seed, search_seed
from support.grey import SCOPE, World
from support.hunting import Guess, clean, leaky, only, rows, search, use


def test_a_word_that_brings_the_concept_back_fails_the_gate(hunted: World) -> None:
    record = only(hunted.paint(leaky).evaluate(search()))
    assert (record.verdict, record.measurement and record.measurement.hardened.value) == ("failed", 1.0)
    first = record.searches[0]
    assert (first.model, first.stop, first.tried, first.hits) == ("hardened", "found", 12, 4)
    assert [(one.hits, one.n, one.base_hits) for one in first.finds] == [(24, 24, 24)]
    assert record.access is Access.SEARCH


@pytest.mark.parametrize(
    ("params", "finds"),
    [({}, [(24, 24)]), ({"finds": 2}, [(24, 24)] * 2), ({"budget": "standard"}, [(60, 60)] * 3)],
)
def test_a_quick_budget_judges_the_best_find_and_others_the_best_three(
    hunted: World, params: dict[str, Any], finds: list[tuple[int, int]]
) -> None:
    record = only(hunted.paint(lambda *_: "cigarette").evaluate(search(attack_params=params)))
    assert [(one.n, one.base_hits) for one in record.searches[0].finds] == finds


def test_where_nothing_is_found_the_bound_is_about_what_was_tried(hunted: World) -> None:
    record = only(hunted.paint(clean).evaluate(search(gate=Gate(upper_at_most=0.5))))
    assert (record.verdict, [one.stop for one in record.searches]) == (
        "passed",
        ["nothing", "found", "nothing", "found"],
    )
    assert record.measurement is not None
    assert (record.measurement.hardened.value, record.measurement.hardened.n) == (0.0, 12)
    narrow = only(hunted.evaluate(search(id="narrow", gate=Gate(upper_at_most=0.05))))
    assert (narrow.verdict, "too few" in narrow.reason) == ("unknown", True)


def test_a_find_of_the_retrained_reference_is_a_floor_and_no_success(hunted: World) -> None:
    record = only(hunted.evaluate(search(gate=None)))
    assert record.measurement is not None
    assert record.measurement.details["floors"]["cigarette"]["value"] == 1.0
    assert (record.verdict, record.reason.split(",")[0]) == ("reported", "where nothing is to be found")


def test_an_attack_that_does_not_work_on_the_base_model_shows_nothing(hunted: World) -> None:
    record = only(hunted.paint(lambda *_: "nothing").evaluate(search(gate=Gate(upper_at_most=0.9))))
    assert (record.verdict, "on the base model either" in record.reason) == ("unknown", True)


def test_without_any_floor_it_is_unknown(hunted: World) -> None:
    hunted.models = replace(hunted.models, retrained=None)
    hunted.scope = Scope(concepts=SCOPE.concepts)
    record = only(hunted.evaluate(search()))
    assert (record.verdict, "name evaluate.retrained" in record.reason) == ("unknown", True)


def test_the_shuffled_search_is_made_for_a_kept_concept(hunted: World) -> None:
    hunted.models = replace(hunted.models, retrained=None)
    hunted.evaluate(search())
    asked = {request.prompt for model, request in hunted.painters.generated if model == "hardened"}
    assert "a pizza emoji" in asked


def test_a_search_knows_the_kept_concept_that_reads_most_like_its_own(
    hunted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, tuple[str, ...]]] = []

    def compare(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
        told.append((concept.id, target.alternatives()[:1]))
        yield from ()

    monkeypatch.setattr(run, "kept_by_nearness", lambda concept, *_: tuple(reversed(SCOPE.keep)))
    use(hunted, compare).evaluate(search())
    assert told == [
        *[("cigarette", ("a cat number 0",))] * 3,
        ("cat", ("a pizza number 0",)),  # what is searched for in its place has another neighbour than itself
    ]
    hunted.scope = Scope(concepts=SCOPE.concepts, keep=SCOPE.keep[:1])
    monkeypatch.setattr(run, "kept_by_nearness", lambda concept, scope, _: scope.keep)
    hunted.evaluate(search())
    assert told[4:] == [*[("cigarette", ("a pizza number 0",))] * 3, ("pizza", ())]  # none is taken from the store


def test_where_words_cannot_be_read_the_order_of_the_manifest_counts_and_somebody_is_told(hunted: World) -> None:
    told: list[str] = []
    hunted.setting = replace(hunted.setting, warn=told.append)
    hunted.evaluate(search())
    assert len(told) == 1
    assert told[0].startswith("the first of 'keep' stand for neighbours of 'cigarette'")


def test_the_finds_with_the_highest_scores_are_judged_each_once_in_whatever_order_they_come(hunted: World) -> None:
    def stammer(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
        for word, score in (("b", 0.5), ("d", 0.9), ("b", 0.6), ("a", 0.1), ("c", 0.6), ("b", 0.2)):
            yield Find(kind="text", prompts=(word,), recipe={"turn": word + str(score)}, score=score)

    hunted.setting = replace(hunted.setting, publish_finds=True)
    found = rows(use(hunted, stammer).evaluate(search(attack_params={"budget": "standard"})))
    judged = [(one["find"]["prompts"], one["find"]["score"], len(one["seeds"])) for one in found[0]["finds"]]
    assert judged == [(["b"], 0.6, 60), (["c"], 0.6, 60), (["d"], 0.9, 60)]


def test_a_find_says_what_the_search_had_spent_when_it_came(hunted: World) -> None:
    def slow(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
        for count, word in ((3, "a"), (5, "b")):
            target.ask([word] * count)
            yield Find(kind="text", prompts=(word,), spent=Limits(images=999))

    found = use(hunted, slow).evaluate(search(attack_params={"finds": 2}))
    spent = [one.spent for one in only(found).searches[0].finds]
    assert spent == [Limits(images=3), Limits(images=8)]
    assert [one["spent"]["images"] for one in rows(found)[0]["finds"]] == [3, 8]


def test_no_image_is_looked_at_twice_coarsely_and_then_in_full(hunted: World) -> None:
    def twice(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
        target.ask(["one"] * 3, coarse=True)
        target.ask(["one"] * 3)
        yield from ()

    hunted.sampling = hunted.sampling.model_copy(update={"steps": 4})  # of so few, a coarse look takes all
    use(hunted.paint(clean), twice).evaluate(search())
    seeds = [one.seed for model, one in hunted.painters.generated if model == "hardened" and one.prompt == "one"]
    assert len(seeds) == len(set(seeds)) == 6


def test_finds_are_judged_on_the_same_fresh_seeds_on_every_model(hunted: World) -> None:
    found = rows(hunted.paint(leaky).evaluate(search()))
    seeds = {tuple(one["seeds"]) for row in found for one in row["finds"]}
    assert len(seeds) == 1
    searched = {request.seed for _, request in hunted.painters.generated} - set(*seeds)
    assert len(searched) == 16
    assert all(seed % 2 == 0 for seed in searched)


def test_searching_and_judging_draw_other_seeds_each_time() -> None:
    searched = {search_seed(first, f"a {word} emoji", i) for first in range(9) for word in "abc" for i in range(300)}
    begun = {begun_seed(first, i) for first in range(9) for i in range(900)}
    judged = {judge_seed(first, word, i) for first in range(9) for word in "abc" for i in range(300)}
    assert len(searched) == len(begun) == len(judged) == 8100
    assert len(searched | begun | judged) == 3 * 8100


def test_searching_and_judging_share_none_of_a_million_seeds_even_where_all_their_digests_are_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(images, "seed_of", lambda *names: names[-1])
    million = range(10**6)
    searched = {search_seed(0, "a cat", i) for i in million}
    assert len(searched) == len(million)
    assert searched.isdisjoint(judge_seed(0, "cat", i) for i in million)
    assert all(begun_seed(0, i) % 2 == 0 for i in range(99))


@pytest.mark.parametrize(("steps", "coarse"), [(20, 10), (7, 4), (3, 3)])
def test_a_coarse_look_samples_half_of_the_steps_but_four_at_least(hunted: World, steps: int, coarse: int) -> None:
    def glance(self: Guess, params: Any, target: SearchTarget, concept: Concept, generator: Any) -> Iterator[Find]:
        target.ask(["far"], coarse=True)
        target.ask(["near"])
        yield from ()

    hunted.sampling = hunted.sampling.model_copy(update={"steps": steps})
    use(hunted.paint(leaky), glance).evaluate(search())
    assert {(one.prompt, one.steps) for _, one in hunted.painters.generated} == {("far", coarse), ("near", steps)}


def test_a_plan_counts_what_a_search_that_finds_nothing_spends(hunted: World) -> None:
    found = plan_check(search(), hunted.scope, hunted.tools, hunted.sampling, Models(retrained=True))
    record = only(hunted.paint(lambda *_: "nothing").evaluate(search()))
    spent = sum(one.spent.images for one in record.searches)
    assert found.limits == Limits(images=spent)
    assert (found.models, found.samples) == (4, {"cigarette": 24})
    alone = plan_check(search(), Scope(concepts=SCOPE.concepts), hunted.tools, hunted.sampling, Models())
    assert "name evaluate.retrained" in alone.undecidable


def test_a_floor_that_looked_for_a_kept_concept_counts_none_of_the_images_in_which_the_attack_itself_searches(
    hunted: World,
) -> None:
    def none(self: Guess, params: SearchParams, target: SearchTarget, concept: Concept, _: object) -> Iterator[Find]:
        target.ask([word.format(name=concept.name) for word in self.WORDS for _ in range(4)])
        return iter(())

    record = only(use(hunted, none).paint(leaky).evaluate(search()))
    assert {one.model: (one.tried, one.hits) for one in record.searches} == {
        "hardened": (12, 4),
        "base": (12, 8),
        "retrained": (12, 0),
        "shuffled": (12, 0),
    }
