"""Release reports to render: one that passed, one that failed, one that could not be decided, and stranger ones."""

from __future__ import annotations

from sample_checks import distance_check, kept_check, plain_check, synonyms_check, unmeasured, without_check
from sample_hostile import HOSTILE, hostile, lying
from sample_masks import masked
from sample_membranes import curves, membranes, permeabilities
from sample_parts import check, claim, digest, interval, pairs, png, report
from sample_training import relearning, training_check, trial

from publisher.api import ReleaseReport

__all__ = [
    "ALL",
    "HOSTILE",
    "check",
    "claim",
    "curves",
    "digest",
    "distance_check",
    "failed",
    "hostile",
    "interval",
    "kept_check",
    "lying",
    "masked",
    "membranes",
    "pairs",
    "passed",
    "permeabilities",
    "plain_check",
    "png",
    "relearning",
    "report",
    "synonyms_check",
    "training_check",
    "trial",
    "unknown",
    "unmeasured",
    "without_check",
]


def passed() -> ReleaseReport:
    """Return a report in which everything was measured and every gate kept."""
    return report(
        (
            claim("plain", "cigarette and pistol are not generated from plain prompts", (plain_check(),)),
            claim("synonyms", "cigarette and pistol are not generated from synonyms", (synonyms_check(),)),
            claim("kept", "pencil, rocket and pizza are generated as well as before", (kept_check(),)),
        )
    )


def failed() -> ReleaseReport:
    """Return a report: one claim failed, one could not be decided, one has no check."""
    return report(
        (
            claim("plain", "cigarette and pistol are not generated from plain prompts", (plain_check(),)),
            claim(
                "synonyms", "cigarette and pistol are not generated from synonyms", (synonyms_check(0.34, 0.27, 0.42),)
            ),
            claim("kept", "pencil, rocket and pizza are generated as well as before", (kept_check(), unmeasured())),
            claim("empty", "the empty prompt generates what it generated before", (), binds="by-convention"),
        )
    )


def unknown() -> ReleaseReport:
    """Return a report in which nothing failed and one check measured too little."""
    return report(
        (
            claim("plain", "cigarette and pistol are not generated from plain prompts", (plain_check(),)),
            claim(
                "synonyms", "cigarette and pistol are not generated from synonyms", (synonyms_check(0.05, 0.01, 0.3),)
            ),
        )
    )


ALL = {
    "passed": passed,
    "failed": failed,
    "unknown": unknown,
    "hostile": hostile,
    "lying": lying,
    "membranes": membranes,
    "relearning": relearning,
    "masked": masked,
}
