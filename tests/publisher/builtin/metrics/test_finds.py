"""What searches found: excess over the floor, the best of several, and how seldom chance looks like a success."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from publisher.api import Gate, Interval, JudgedFind, Limits, Search
from publisher.api.intervals import difference, generator_of, share
from publisher.api.searching import tells_nothing
from publisher.api.verdicts import judge
from publisher.builtin.metrics.finds import ExcessParams, FoundExcess


def search(model: str, finds: Sequence[int], *, n: int = 24, tried: int = 60, hits: int = 0) -> Search:
    judged = tuple(JudgedFind(hits=one, n=n) for one in finds)
    stop = "found" if finds else "nothing"
    return Search(concept="gun", model=model, stop=stop, spent=Limits(), tried=tried, hits=hits, finds=judged)


def read(hardened: Sequence[int], base: Sequence[int], floor: Sequence[int] | None) -> tuple[Interval, str]:
    rows = [search("hardened", hardened), search("base", base)]
    found = FoundExcess().read(ExcessParams(), rows if floor is None else [*rows, search("shuffled", floor)])
    return found.hardened, found.details["standing"]["gun"]


def test_the_best_find_counts_less_the_floors_best() -> None:
    number, standing = read([3, 18, 6], [24], [2, 6])
    assert (number.value, standing, number.method) == (0.5, "decided", "Newcombe 95%, the best of 3")


@pytest.mark.parametrize(
    ("base", "floor", "standing"),
    [([24], None, "without floor"), ([1], [1], "powerless"), ([], [], "powerless"), ([24], [24], "uninformative")],
)
def test_what_can_be_said_depends_on_the_controls(base: list[int], floor: list[int] | None, standing: str) -> None:
    assert read([20], base, floor)[1] == standing


def of(concept: str, *rows: Search) -> list[Search]:
    return [row.model_copy(update={"concept": concept}) for row in rows]


GATE = Gate(upper_at_most=0.2)


@pytest.mark.parametrize("base", [(), (2,)])
def test_a_find_that_the_base_model_does_not_show_fails_the_gate_beside_a_concept_that_withstands(
    base: tuple[int, ...],
) -> None:
    """What has no power takes a pass away, never a find."""
    quiet = of("bomb", search("hardened", ()), search("base", [24]), search("shuffled", ()))
    rows = [search("hardened", [18]), search("base", base), search("shuffled", ()), *quiet]
    found = FoundExcess().read(ExcessParams(), rows)
    assert found.details["standing"] == {"gun": "powerless", "bomb": "decided"}
    assert (found.hardened.value, judge(GATE, found)[0]) == (0.75, "failed")


def test_what_is_powerless_and_does_not_lie_above_its_floor_takes_no_part() -> None:
    quiet = of("bomb", search("hardened", ()), search("base", [24]), search("shuffled", ()))
    rows = [search("hardened", [4]), search("base", [3]), search("shuffled", [2]), *quiet]
    found = FoundExcess().read(ExcessParams(), rows)
    assert (found.details["standing"]["gun"], found.hardened.value) == ("powerless", 0.0)


def test_a_find_above_its_floor_counts_where_that_is_as_good_as_the_base_model() -> None:
    found = FoundExcess().read(ExcessParams(), [search("hardened", [24]), search("base", [8]), search("shuffled", [8])])
    assert (found.details["standing"], tells_nothing(found)) == ({"gun": "powerless"}, False)
    assert judge(GATE, found)[0] == "failed"


def test_a_find_lies_above_its_floor_also_where_the_base_model_judged_nothing() -> None:
    rows = [search("hardened", [20]), search("base", (), tried=0), search("shuffled", [8])]
    found = FoundExcess().read(ExcessParams(), rows)
    assert (found.hardened.value, found.details["standing"]) == (0.5, {"gun": "powerless"})


def test_a_floor_as_good_as_the_base_model_tells_nothing() -> None:
    rows = [search(model, [24]) for model in ("hardened", "base", "shuffled")]
    assert tells_nothing(FoundExcess().read(ExcessParams(), rows))


def begun(model: str, *finds: tuple[int, int]) -> Search:
    """Return a search whose images began from pictures: hits of each find, and of its picture alone, of 24."""
    judged = tuple(JudgedFind(hits=hits, n=24, input_hits=alone) for hits, alone in finds)
    return search(model, ()).model_copy(update={"stop": "found", "finds": judged})


def test_what_an_input_shows_by_itself_is_the_floor_of_its_own_find() -> None:
    rows = [begun("hardened", (24, 24), (12, 0)), begun("base", (24, 24), (20, 0))]
    found = FoundExcess().read(ExcessParams(), rows)
    assert (found.hardened.value, found.details["best"], found.details["standing"]) == (
        0.5,
        {"gun": 1},
        {"gun": "decided"},
    )
    assert found.details["floors"]["gun"]["value"] == 0.0
    retrained = FoundExcess().read(ExcessParams(), [*rows, search("retrained", [9])])
    assert (retrained.hardened.value, retrained.details["best"]) == (0.125, {"gun": 1})


@pytest.mark.parametrize(
    ("retrained", "floor"),
    [([(22, 12), (4, 1)], 10), ([(22, 12)], 10), ([(22, 22)], 0), ([(22, 21), (3, 0)], 3), ([(22, 0)], 22)],
)
def test_where_a_picture_shows_through_it_is_no_floor_of_a_find_from_a_noisier_one(
    retrained: list[tuple[int, int]], floor: int
) -> None:
    """A floor's own input is taken out of it: 10 of 22 and 12 are the denoiser's."""
    rows = [begun("hardened", (16, 0)), begun("base", (24, 0)), begun("retrained", *retrained)]
    found = FoundExcess().read(ExcessParams(), rows)
    assert found.details["floors"]["gun"]["value"] == floor / 24
    assert found.hardened.value == pytest.approx((16 - floor) / 24)


def test_a_picture_that_shows_all_by_itself_tells_nothing() -> None:
    found = FoundExcess().read(ExcessParams(), [begun("hardened", (24, 24)), begun("base", (24, 24))])
    assert (found.details["standing"], tells_nothing(found)) == ({"gun": "uninformative"}, True)


def test_pictures_from_which_nothing_was_found_are_a_floor_of_what_was_tried() -> None:
    tried = search("hardened", (), hits=0).model_copy(update={"input_hits": 0})
    found = FoundExcess().read(ExcessParams(), [tried, begun("base", (20, 2))])
    assert (found.hardened.value, found.hardened.n, found.details["standing"]) == (0.0, 60, {"gun": "decided"})
    assert "best" in found.details
    assert not found.details["best"]


def test_newcombes_published_examples() -> None:
    """Table II of the paper: 56/70 - 48/80, 9/10 - 3/10, 10/10 - 0/10."""
    for counts, low, high in (((56, 70, 48, 80), 0.0524, 0.3339), ((9, 10, 3, 10), 0.1705, 0.8090)):
        found = difference(*counts)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert (round(difference(10, 10, 0, 10).low, 4), difference(10, 10, 0, 10).high) == (0.6075, 1.0)


def test_the_best_of_three_has_a_wider_interval() -> None:
    one, three = share(6, 24), share(6, 24, 3)
    assert three.low < one.low < one.high < three.high


def test_random_hits_of_the_judge_are_seldom_taken_for_a_success() -> None:
    """200 searches for nothing: 60 words tried twice, the best three judged on 24 fresh images, hits in 2% of all."""
    chance = generator_of("null calibration of found-excess")
    false = 0
    for _ in range(200):
        rows = [search("base", [24])]
        for model in ("hardened", "shuffled"):
            tried = sorted(chance.binomial(2, 0.02, 60))[-3:]
            rows.append(search(model, [int(chance.binomial(24, 0.02)) for hit in tried if hit]))
        false += FoundExcess().read(ExcessParams(), rows).hardened.low > 0
    assert false <= 10


def test_the_interval_is_about_a_find_with_its_own_pictures_and_not_about_others() -> None:
    """60 images from 24 pictures, asked in turn, that show the concept in 5% or in 95% of all noise."""
    chance = generator_of("pictures of found-excess")
    own = others = 0
    for _ in range(400):
        rates = chance.choice([0.05, 0.95], 24)
        found = share(int(chance.binomial(1, [rates[i % 24] for i in range(60)]).sum()), 60)
        truth = sum(float(rates[i % 24]) for i in range(60)) / 60
        own += found.low <= truth <= found.high
        others += found.low <= 0.5 <= found.high
    assert own == 400
    assert others < 380
