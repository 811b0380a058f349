from __future__ import annotations

import math

import pytest

from publisher.api import Gate, Interval, Measurement, Verdict
from publisher.api.verdicts import decide, judge, worst


def interval(low: float, value: float, high: float, n: int = 100) -> Interval:
    return Interval.model_construct(low=low, value=value, high=high, n=n, method="by hand")


@pytest.mark.parametrize(
    ("low", "value", "high", "verdict"),
    [
        (0.0, 0.0, 0.1, "passed"),
        (0.0, 0.0, 0.11, "unknown"),
        (0.0, 0.1, 0.2, "unknown"),
        (0.05, 0.11, 0.2, "failed"),
        (0.2, 0.3, 0.4, "failed"),
    ],
)
def test_an_upper_bound_is_kept_by_the_intervals_end_and_broken_by_the_value(
    low: float, value: float, high: float, verdict: Verdict
) -> None:
    assert decide(Gate(upper_at_most=0.1), interval(low, value, high))[0] == verdict
    assert decide(Gate(lower_at_least=-0.1), interval(-high, -value, -low))[0] == verdict


@pytest.mark.parametrize(("value", "verdict"), [(-0.02, "passed"), (-0.021, "failed"), (0.0, "passed")])
def test_a_bound_of_the_value_is_kept_or_broken(value: float, verdict: Verdict) -> None:
    assert decide(Gate(lower_at_least=-1, value_at_least=-0.02), interval(-0.9, value, 0.9))[0] == verdict
    assert decide(Gate(upper_at_most=1, value_at_most=0.02), interval(-0.9, -value, 0.9))[0] == verdict


def test_one_broken_bound_fails_whatever_the_others_say() -> None:
    gate = Gate(upper_at_most=0.1, value_at_most=0.02)
    assert decide(gate, interval(0.0, 0.05, 0.2)) == ("failed", "value 0.05 > 0.02")


def test_one_undecided_bound_leaves_all_undecided() -> None:
    verdict, reason = decide(Gate(upper_at_most=0.1, value_at_most=0.02), interval(0.0, 0.0, 0.2))
    assert verdict == "unknown"
    assert reason == "upper bound 0.2 is not <= 0.1, value 0 is: too few samples"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_never_passed(number: float) -> None:
    for ends in ((number, 0.0, 0.0), (0.0, number, 0.0), (0.0, 0.0, number)):
        assert decide(Gate(upper_at_most=1), interval(*ends)) == ("unknown", "the measurement is not a finite number")


def test_nothing_observed_is_unknown() -> None:
    assert decide(Gate(upper_at_most=0.1), interval(0, 0, 0, n=0)) == ("unknown", "nothing was observed")


def test_a_value_outside_its_interval_is_unknown() -> None:
    assert decide(Gate(upper_at_most=0.5), interval(0.0, 0.4, 0.3))[0] == "unknown"


def test_a_pass_needs_a_base_model_that_breaks_the_gate() -> None:
    low, high = interval(0.0, 0.01, 0.05), interval(0.8, 0.9, 1.0)
    gate = Gate(upper_at_most=0.1)
    assert judge(gate, Measurement(hardened=low, base=high))[0] == "passed"
    verdict, reason = judge(gate, Measurement(hardened=low, base=low))
    assert verdict == "unknown"
    assert reason == "the base model keeps this gate too (0.01 <= 0.1): it shows nothing"


def test_a_failure_needs_no_control() -> None:
    bad = interval(0.3, 0.4, 0.5)
    assert judge(Gate(upper_at_most=0.1), Measurement(hardened=bad, base=interval(0, 0, 0.01)))[0] == "failed"


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([], "unknown"),
        (["passed", "passed"], "passed"),
        (["passed", "unknown"], "unknown"),
        (["unknown", "failed", "passed"], "failed"),
    ],
)
def test_the_worst_verdict_counts_and_no_verdict_is_unknown(verdicts: list[Verdict], expected: Verdict) -> None:
    assert worst(verdicts) == expected
