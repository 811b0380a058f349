from __future__ import annotations

import pytest

from publisher.api import Gate, Interval, Measurement, Verdict
from publisher.api.verdicts import judge, lower, of_claim, overall, worst


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


@pytest.mark.parametrize(
    ("gate", "verdict", "counts", "discloses"),
    [
        (None, "unknown", "unknown", False),
        (None, "unknown", "reported", True),
        (None, "reported", "reported", True),
        (Gate(upper_at_most=0.3), "unknown", "unknown", True),
        (Gate(upper_at_most=0.3), "failed", "failed", True),
    ],
)
def test_an_unknown_check_without_a_gate_counts_for_nothing_where_nothing_is_promised(
    gate: Gate | None, verdict: Verdict, counts: str, *, discloses: bool
) -> None:
    assert of_claim([(gate, verdict)], discloses=discloses) == counts
    assert of_claim([], discloses=discloses) == "unknown"


def test_a_record_that_says_passed_of_a_reported_number_is_lowered() -> None:
    assert lower("passed", "reported") == lower("reported", "passed") == "reported"
    assert lower("unknown", "reported") == "unknown"
