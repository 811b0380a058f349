"""What it takes to get a concept back: which checks stand in a cell, which of them decides, and what it says."""

from __future__ import annotations

from typing import Any

import pytest
import report_samples as samples
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.api import Access, CheckRecord, Gate, Measurement, ReleaseReport, Search, Verdict
from publisher.api.model_files import MEMBRANES
from publisher.report.access import WITH_MASK, WITH_MEMBRANES, AccessCell, access_table
from publisher.report.verdicts import check_verdict

RATE = Gate(upper_at_most=0.1)
VERDICTS: tuple[Verdict, ...] = ("passed", "failed", "unknown", "reported")


def rate(value: float, gate: Gate | None = RATE, name: str = "one", **changes: Any) -> CheckRecord:
    """Return a check of one concept that was measured, with an interval of two points on both sides."""
    number = samples.interval(value, max(0.0, value - 0.02), value + 0.02, 60)
    fields: dict[str, Any] = {"concepts": ("cigarette",), "attack": "plain", "id": name}
    return samples.check(name, gate, Measurement(hardened=number), **fields | changes)


def cell(
    *checks: CheckRecord,
    access: Access = Access.PROMPT,
    concept: str = "cigarette",
    binds: str = "in-weights",
    **changes: Any,
) -> AccessCell:
    """Return one cell of the report that these checks make."""
    found = access_table(samples.report((samples.claim("one", "it is gone", checks, binds=binds),), **changes))
    assert found is not None
    return next(one for row in found.rows for one in row.cells if (row.access, one.concept.id) == (access, concept))


def test_the_table_has_a_row_for_each_access_and_a_cell_for_each_concept_that_goes() -> None:
    found = access_table(samples.passed())
    assert found is not None
    assert [row.access for row in found.rows] == list(Access)
    assert {tuple(one.concept.id for one in row.cells) for row in found.rows} == {("cigarette", "pistol")}
    assert [row.cells[1].lines for row in found.rows[:2]] == [
        ("passed 4.2% (1.5% to 8.8%), n 144; value and verdict of 2 concepts together; worst of 2 checks",),
        ("not attacked",),
    ]
    assert found.attacked == 2


def test_a_report_that_is_older_than_the_table_has_none() -> None:
    old = samples.passed().as_json()
    del old["concepts"]
    for claim in old["claims"]:
        for check in claim["checks"]:
            del check["access"], check["resistance"]
    assert access_table(ReleaseReport.parse(old)) is None


@pytest.mark.parametrize(
    ("changes", "attacked"),
    [
        ({}, 1),
        ({"access": None}, 0),
        ({"access": Access.IMAGE}, 0),
        ({"resistance": False}, 0),
        ({"concepts": ("pencil",)}, 0),
    ],
)
def test_a_cell_is_of_its_access_its_concept_and_of_metrics_that_say_how_hard_it_is(
    changes: dict[str, Any], attacked: int
) -> None:
    assert len(cell(rate(0.01, **changes)).attempts) == attacked


def test_the_worst_for_the_publisher_decides_and_the_number_of_checks_is_said() -> None:
    found = cell(rate(0.01, name="a"), rate(0.4, name="b"), rate(0.6, name="c"), rate(0.09, name="d"))
    assert (found.word, found.value, found.checks) == ("failed", "60%", 4)
    assert found.attempts[0].remarks == ("worst of 4 checks",)
    assert cell(rate(0.01, name="a"), rate(0.09, name="d")).word == "unknown"


def test_disclosing_more_makes_no_cell_look_better_or_worse_than_what_was_disclosed() -> None:
    passed = rate(0.03, name="a")
    better, worse = (cell(passed, rate(value, None, name="b")) for value in (0.02, 0.3))
    assert (better.word, better.value) == ("passed", "3%")
    assert (worse.word, worse.value) == ("reported", "30%")


def test_what_crashed_is_unknown_and_was_not_measured() -> None:
    crashed = samples.check("plain", RATE, None, concepts=("cigarette",))
    assert cell(crashed).lines == ("unknown not measured, n 0",)
    assert cell(rate(0.01), crashed).word == "unknown"


def test_a_concept_that_keeps_a_common_gate_only_with_the_others_is_reported() -> None:
    together = Measurement(
        hardened=samples.interval(0.05, 0.02, 0.09),
        by_concept={"cigarette": samples.interval(0.1, 0.05, 0.17, 72), "pistol": samples.interval(0, 0, 0.05, 72)},
    )
    check = samples.check("plain", RATE, together)
    assert check_verdict(check) == "passed"
    assert cell(check).lines == ("reported 10% (5% to 17%), n 72; verdict of 2 concepts together",)
    assert cell(check, concept="pistol").lines == ("passed 0% (0% to 5%), n 72; verdict of 2 concepts together",)


def test_training_costs_steps_and_the_gates_own_number_stands_beside_them() -> None:
    found = cell(samples.training_check(), access=Access.ADAPTER).attempts[0]
    assert (found.value, found.interval, found.n) == ("60 steps", "trials 46.7 to 73.3", "3 trials")
    assert found.judged == "t50-ratio 6.2x (3.9x to 9.1x)"
    assert found.verdict == "passed"
    assert not found.pooled
    assert found.floor == "a model that never knew it takes 23.3 steps"
    assert found.floor in found.remarks


def test_what_did_not_come_back_took_more_than_all_steps_and_seconds_are_told_where_known() -> None:
    never = tuple(samples.trial("hardened", seed, (0, 0, 1)) for seed in range(3))
    check = samples.training_check().model_copy(update={"trials": never, "concepts": ("cigarette",)})
    claim = samples.claim("one", "it is gone", (check,))
    table = access_table(samples.report((claim,)), {check.id: 0.5})
    assert table is not None
    (line,) = table.rows[4].cells[0].lines
    assert line.startswith("passed more than 10 steps, n 3 trials; judged by t50-ratio 6.2x (3.9x to 9.1x); ")
    assert line.endswith("; 5 s on the machine that made it")


def test_a_number_that_needs_membranes_says_so_and_so_do_the_weights_alone() -> None:
    attached, bare = rate(0.01, name="a"), rate(0.9, None, name="b", membranes="off")
    found = cell(attached, bare, binds="in-pipeline", permeabilities=samples.permeabilities())
    assert [(one.verdict, one.value, one.condition) for one in found.attempts] == [
        ("reported", "90%", ""),
        ("passed", "1%", WITH_MEMBRANES),
    ]
    merged = cell(attached, files={MEMBRANES: "0" * 64}).attempts[0]
    assert (merged.condition, merged.remarks) == ("", ())
    assert cell(attached, binds="by-convention").attempts[0].condition == "only by convention"
    assert cell(attached).attempts[0].condition == ""


def test_membranes_of_other_concepts_are_no_condition_but_are_told() -> None:
    others = samples.permeabilities().model_copy(update={"membranes": ("skull",), "rows": ()})
    (found,) = cell(rate(0.01), permeabilities=others).attempts
    assert (found.condition, found.remarks) == ("", ("membranes of other concepts attached",))


def test_beside_a_mask_that_is_honoured_stands_what_an_attacker_gets_who_ignores_it() -> None:
    check, _ = samples.masked().claims[1].checks
    found = cell(check, access=Access.TRAINING, binds="by-convention")
    assert {(one.verdict, one.condition) for one in found.attempts} == {("passed", WITH_MASK), ("reported", "")}
    other = check.model_copy(update={"metric": "selectivity", "resistance": False})
    assert [one.condition for one in cell(other, access=Access.TRAINING).attempts] == [""]


made = st.builds(
    lambda number, value, verdict, attached, access, concepts, measured: rate(
        value, None if verdict == "reported" else RATE, name=str(number)
    ).model_copy(
        update={
            "verdict": verdict,
            "membranes": attached,
            "access": access,
            "concepts": concepts,
            **({} if measured else {"measurement": None}),
        }
    ),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.03, 0.08, 0.09, 0.5]),
    st.sampled_from(VERDICTS),
    st.sampled_from(["on", "off"]),
    st.sampled_from([None, Access.PROMPT, Access.BASE]),
    st.sampled_from([("cigarette",), ("pistol",), ("cigarette", "pistol"), ("pencil",)]),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(made, max_size=6))
def test_a_cell_is_never_better_than_its_checks(checks: list[CheckRecord]) -> None:
    claim = samples.claim("one", "it is gone", tuple(checks))
    table = access_table(samples.report((claim,), decision="unknown"))
    assert table is not None
    for row in table.rows:
        for one in row.cells:
            own = [check for check in checks if check.access is row.access and one.concept.id in check.concepts]
            found = [check_verdict(check) for check in own]
            assert bool(one.attempts) is bool(own)
            assert one.verdict != "passed" or "passed" in found
            for bad in ("failed", "unknown"):
                assert bad not in found or one.verdict in ("failed", bad)
            assert one.verdict != "failed" or "failed" in found


@settings(max_examples=40, deadline=None)
@given(st.lists(made, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_checks_decides_nothing(checks: list[CheckRecord], random: Any) -> None:
    numbered = [check.model_copy(update={"id": str(i), "access": Access.PROMPT}) for i, check in enumerate(checks)]
    shuffled = list(numbered)
    random.shuffle(shuffled)
    one, other = cell(*numbered), cell(*shuffled)
    assert (one.verdict, one.checks) == (other.verdict, other.checks)
    assert {(found.condition, found.verdict, found.checks) for found in one.attempts} == {
        (found.condition, found.verdict, found.checks) for found in other.attempts
    }


def hunt(
    rate: float,
    floor: float,
    standing: str = "decided",
    *,
    stop: str = "found",
    finds: int = 1,
    name: str = "hunt",
    **changes: Any,
) -> CheckRecord:
    """Return a check without a gate that searched for two concepts, the other one in vain."""
    spent = {"images": 12, "gradient_steps": 30}
    one = {"concept": "cigarette", "model": "hardened", "spent": spent, "tried": 12, "hits": 3}
    judged = [{"hits": round(24 * rate), "n": 24, "spent": {"images": 5}}] * finds
    excess = samples.interval(rate - floor, rate - floor - 0.1, rate - floor + 0.1, 24)
    details = {
        "standing": {"cigarette": standing, "pistol": "powerless"},
        "rates": {"cigarette": samples.interval(rate, max(0.0, rate - 0.1), rate + 0.1, 24).as_json()},
        "floors": {"cigarette": samples.interval(floor, 0.0, floor + 0.1, 24).as_json()},
        "best": {"cigarette": 0} if finds else {},
    }
    fields: dict[str, Any] = {
        "concepts": ("cigarette", "pistol"),
        "attack": "derived-embedding",
        "metric": "found-excess",
        "unit": "points",
        "access": Access.PROMPT,
        "resistance": True,
        "searches": (Search.parse({**one, "stop": stop, "finds": judged}),),
    }
    found = Measurement(hardened=excess, by_concept={"cigarette": excess}, details=details)
    return samples.check(name, None, found, **fields | changes)


def test_a_cell_of_a_search_has_the_best_find_its_floor_and_the_cost() -> None:
    (line,) = cell(hunt(0.5, 0.125)).lines
    assert line.startswith("reported 50% over a floor of 12.5% (40% to 60%), n 24 of find 1")
    assert "derived-embedding, after 5 images" in line
    assert "judged by found-excess 37.5 points (27.5 points to 47.5 points)" in line


def test_where_nobody_wrote_down_when_a_find_came_the_whole_search_is_the_cost() -> None:
    check = hunt(0.5, 0.125)
    old = [one.model_copy(update={"spent": None}) for one in check.searches[0].finds]
    search = check.searches[0].model_copy(update={"finds": tuple(old)})
    (line,) = cell(check.model_copy(update={"searches": (search,)})).lines
    assert "derived-embedding, in a search of 12 images and 30 gradient steps" in line


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"finds": 0, "rate": 0.0}, "reported nothing found (0% to 10%), n 12 tried; derived-embedding, more than 12"),
        ({"standing": "powerless", "floor": 0.45}, "unknown powerless ("),
        ({"standing": "powerless"}, "reported powerless, 50% over a floor of 0% (40% to 60%), n 24 of find 1"),
        ({"standing": "without floor"}, "unknown without floor"),
        ({"standing": "uninformative"}, "reported uninformative"),
        ({"stop": "crashed"}, "unknown crashed"),
        ({"stop": "refused"}, "unknown stopped at refused words"),
    ],
)
def test_a_search_that_cannot_tell_says_why(changes: dict[str, Any], says: str) -> None:
    assert cell(hunt(**{"rate": 0.5, "floor": 0.0} | changes)).lines[0].startswith(says)


def test_a_find_over_its_floor_is_not_hidden_by_what_is_unknown_but_by_what_failed() -> None:
    found, blind = hunt(0.5, 0.0, name="a"), hunt(0.5, 0.4, "powerless", name="b")
    assert (cell(found, blind).word, cell(found, blind).value) == ("reported", "50% over a floor of 0%")
    assert cell(hunt(0.5, 0.45, name="a"), blind).word == "unknown"
    assert cell(found, blind, rate(0.4, name="c")).word == "failed"
