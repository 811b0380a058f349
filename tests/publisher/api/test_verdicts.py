from __future__ import annotations

import pytest

from publisher.api import Gate, Interval, Measurement, Verdict
from publisher.api.verdicts import judge, lower, overall, worst


def measured(n: int = 10) -> Measurement:
    return Measurement(hardened=Interval(value=0.1, low=0.0, high=0.3, n=n, method="by hand"))


def test_a_number_without_a_gate_is_reported_and_a_missing_one_unknown() -> None:
    assert judge(None, measured())[0] == "reported"
    assert judge(None, measured(n=0)) == ("unknown", "nothing was observed")
    assert judge(Gate(upper_at_most=0.3), measured())[0] == "passed"


@pytest.mark.parametrize(
    ("verdicts", "together", "release"),
    [
        ([], "unknown", "unknown"),
        (["reported"], "reported", "unknown"),
        (["reported", "passed"], "passed", "passed"),
        (["reported", "unknown", "passed"], "unknown", "unknown"),
        (["reported", "unknown", "failed"], "failed", "failed"),
    ],
)
def test_what_is_reported_counts_for_nothing(verdicts: list[Verdict], together: str, release: str) -> None:
    assert (worst(verdicts), overall(verdicts)) == (together, release)


def test_a_record_that_says_passed_of_a_reported_number_is_lowered() -> None:
    assert lower("passed", "reported") == lower("reported", "passed") == "reported"
    assert lower("unknown", "reported") == "unknown"
