"""``release/release.json``: the release in one page of JSON."""

from __future__ import annotations

from typing import Literal

from publisher.api import CheckRecord, ClaimRecord, Gate, ReleaseReport, Verdict
from publisher.api.claims import Binding, MembraneUse
from publisher.api.params import Params
from publisher.package.layout import DECISION, PROVENANCE, TESTS, former_tests


class CheckSummary(Params):
    """A check's outcome."""

    id: str
    gate: Gate | None
    membranes: MembraneUse = "on"
    verdict: Verdict


class ClaimSummary(Params):
    """A claim's outcome."""

    id: str
    sentence: str
    binds: Binding
    verdict: Verdict
    checks: tuple[CheckSummary, ...]


class ReleaseSummary(Params):
    """What a release is and how it was decided."""

    release: Literal[1] = 1
    """Version of this schema."""
    name: str
    version: str
    license: str
    decision: Verdict
    base_model: str
    """Name of the base model in the manifest."""
    base_model_digest: str
    family: str
    claims: tuple[ClaimSummary, ...]
    versions: dict[str, str]
    """Python and libraries that made the package, and loaded it before it was signed."""
    manifest_sha256: str
    attestations: tuple[str, ...]
    """Paths of the attestations that must be in the package, each signed by its publisher."""


def attestations(report: ReleaseReport, *, former: bool = False) -> tuple[str, ...]:
    """Return the paths of the attestations that a release with this report must have, sorted.

    Args:
        report: the release's.
        former: as packages had them once, with one attestation of tests a check.
    """
    tests = [former_tests(check.id) for check in checks(report)] if former else [TESTS]
    return tuple(sorted([PROVENANCE, *tests, *([DECISION] if report.decision == "passed" else [])]))


def checks(report: ReleaseReport) -> tuple[CheckRecord, ...]:
    """Return all checks of all claims."""
    return tuple(check for claim in report.claims for check in claim.checks)


def disclosed(report: ReleaseReport) -> frozenset[str]:
    """Return the ids of checks that promise nothing: without a gate, of claims that only disclose."""
    return frozenset(
        check.id for claim in report.claims for check in claim.checks if claim.discloses and not check.gate
    )


def summarise(report: ReleaseReport, *, former: bool = False) -> ReleaseSummary:
    """Summarise a report; ``former`` as for :func:`attestations`."""
    return ReleaseSummary(
        name=report.name,
        version=report.version,
        license=report.license,
        decision=report.decision,
        base_model=report.model.source,
        base_model_digest=report.model.digest,
        family=report.model.family,
        claims=tuple(map(_claim, report.claims)),
        versions=report.versions,
        manifest_sha256=report.manifest_sha256,
        attestations=attestations(report, former=former),
    )


def _claim(claim: ClaimRecord) -> ClaimSummary:
    return ClaimSummary(
        id=claim.id,
        sentence=claim.sentence,
        binds=claim.binds,
        verdict=claim.verdict,
        checks=tuple(
            CheckSummary(id=check.id, gate=check.gate, membranes=check.membranes, verdict=check.verdict)
            for check in claim.checks
        ),
    )
