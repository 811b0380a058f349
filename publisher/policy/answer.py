"""What a policy says of a release, and the error and the record that say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from publisher.api import PolicyRecord, ReleaseReport, WaiverRecord
from publisher.errors import ExitCode, Problem, PublisherError
from publisher.policy.loader import LoadedPolicy


@dataclass(frozen=True)
class Breach:
    """One thing that a policy asks for and does not get."""

    problem: Problem
    """What, at the place in the policy that asks for it."""
    check: str = ""
    """Id of the check that it is about, which a waiver may name; empty: it is about none alone."""
    absent: bool = False
    """A test that must be there is not: the manifest has to be edited."""


@dataclass(frozen=True)
class PolicyAnswer:
    """Everything that a policy says of a release."""

    loaded: LoadedPolicy
    breaches: tuple[Breach, ...]
    """What counts, in the policy's order."""
    waived: Mapping[str, WaiverRecord]
    """Check of the release that has a waiver -> the waiver."""

    def lines(self, *, short: bool = False) -> list[str]:
        """Return each breach as ``policy.yaml:7:5: ...``; ``short``: with the file's name alone."""
        file = self.loaded.path.name if short else str(self.loaded.path)
        return [f"{file}:{one.problem.line}:{one.problem.column}: {one.problem.message}" for one in self.breaches]

    def require(self) -> None:
        """Refuse to go on where something is broken.

        Raises:
            PolicyError: with every breach.
        """
        if self.breaches:
            raise PolicyError(self)

    def as_json(self) -> dict[str, Any]:
        """Return the answer as JSON data."""
        return {
            "file": str(self.loaded.path),
            "sha256": self.loaded.sha256,
            "breaches": [
                {
                    "line": one.problem.line,
                    "column": one.problem.column,
                    "message": one.problem.message,
                    "check": one.check or None,
                    "absent": one.absent,
                }
                for one in self.breaches
            ],
            "waived": {
                check: {**waiver.as_json(), "sentence": waiver.sentence()} for check, waiver in self.waived.items()
            },
        }


class PolicyError(PublisherError):
    """A policy asks for what a release does not have."""

    def __init__(self, answer: PolicyAnswer) -> None:
        self.answer = answer
        absent = any(one.absent for one in answer.breaches)
        self.exit_code = ExitCode.USAGE if absent else ExitCode.REFUSED
        super().__init__("\n".join(answer.lines()))

    def __str__(self) -> str:
        return self.what


def under_policy(report: ReleaseReport, answer: PolicyAnswer) -> ReleaseReport:
    """Return the report with what the policy says. Verdicts stay; with a breach the decision is *failed*.

    Args:
        report: of the release.
        answer: of the policy to it.
    """
    claims = [
        claim.model_copy(
            update={
                "checks": tuple(
                    check.model_copy(update={"waiver": answer.waived.get(check.id)}) for check in claim.checks
                )
            }
        )
        for claim in report.claims
    ]
    record = PolicyRecord(
        name=answer.loaded.path.name, sha256=answer.loaded.sha256, breaches=tuple(answer.lines(short=True))
    )
    decision = "failed" if answer.breaches else report.decision
    return report.model_copy(update={"claims": tuple(claims), "policy": record, "decision": decision})
