"""What a release does not say: each limit once, with the claims that it belongs to."""

from __future__ import annotations

from publisher.api import ReleaseReport
from publisher.report.wording import count

NAMED = 4
"""Claims that a limit names; of more it says how many they are."""


def limits(report: ReleaseReport) -> list[tuple[str, tuple[str, ...]]]:
    """Return each limit once, with the ids of the claims that have it.

    First those of the release as a whole, which belong to no claim; then those of claims, in the order of the record.
    A limit of the whole release that a claim has too stands once, without claims.
    """
    found: dict[str, list[str]] = {limit: [] for limit in report.limits}
    for claim in report.claims:
        for limit in claim.limits:
            if limit not in report.limits:
                found.setdefault(limit, []).append(claim.id)
    return [(limit, tuple(dict.fromkeys(claims))) for limit, claims in found.items()]


def whose(report: ReleaseReport, claims: tuple[str, ...]) -> str:
    """Return what a limit is about, in words: ``"the whole release"``; ``"all claims"``; ``"kept, erase.cat"``."""
    if not claims:
        return "the whole release"
    if len(report.claims) > 1 and set(claims) == {claim.id for claim in report.claims}:
        return "all claims"
    return ", ".join(claims) if len(claims) <= NAMED else count(len(claims), "claim")
