"""Each limit stands once, with the claims that it belongs to."""

from __future__ import annotations

import report_samples as samples

from publisher.report.limits import limits, whose


def test_each_limit_stands_once_with_its_claims_and_those_of_the_release_first() -> None:
    check = samples.plain_check()
    claims = tuple(
        samples.claim(name, "it is gone", (check,), limits=found)
        for name, found in {"a": ("one", "two"), "b": ("two", "whole"), "c": ("one", "one")}.items()
    )
    report = samples.report(claims, limits=("whole",))
    assert limits(report) == [
        ("whole", ()),
        ("one", ("erase.a", "erase.c")),
        ("two", ("erase.a", "erase.b")),
    ]


def test_whose_a_limit_is_stays_short() -> None:
    check = samples.plain_check()
    report = samples.report(tuple(samples.claim(str(i), "it is gone", (check,)) for i in range(9)))
    ids = tuple(claim.id for claim in report.claims)
    assert [whose(report, some) for some in ((), ids, ids[:1], ids[:2], ids[:5])] == [
        "the whole release",
        "all claims",
        "erase.0",
        "erase.0, erase.1",
        "5 claims",
    ]
