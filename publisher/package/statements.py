"""The attestations' statements: how the release was made, what its checks found, what was decided.

Every statement is about the same subjects: ``release/SHA256SUMS`` first, whose digest stands for names and contents of
the whole payload, then each file of the payload. Numbers stay in the report and are referred to by its digest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from publisher.api import CheckRecord, ReleaseReport
from publisher.package.dsse import STATEMENT_TYPE
from publisher.package.layout import DECISION, PROVENANCE, REPORT, REPORTS, RESOLVED, SUMS, TESTS
from publisher.package.summary import checks, disclosed

PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
TEST_TYPE = "https://in-toto.io/attestation/test-result/v0.1"
DECISION_TYPE = "https://in-toto.io/attestation/svr/v0.2"
TOOL = "pkg:pypi/model-publisher"
BUILD_TYPE = f"{TOOL}#release/v1"
LEVEL = "SLSA Build L1 at most: the release was run by the party that signed it"
_RESULTS = {"passed": "PASSED", "failed": "FAILED", "unknown": "FAILED", "reported": "WARNED"}


def subjects(sums_digest: str, digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what the statements are about.

    Args:
        sums_digest: sha256 of ``release/SHA256SUMS``.
        digests: its content.
    """
    return [_resource(SUMS, sums_digest), *(_resource(path, digests[path]) for path in sorted(digests))]


def statements(
    report: ReleaseReport, sums_digest: str, digests: Mapping[str, str], created: datetime
) -> dict[str, dict[str, Any]]:
    """Return the path of each attestation -> its statement.

    Args:
        report: the release's.
        sums_digest: sha256 of ``release/SHA256SUMS``.
        digests: its content.
        created: when the decision was signed; only the decision's statement, whose type demands it, says a time.
    """
    about = subjects(sums_digest, digests)
    found = {PROVENANCE: _statement(about, PROVENANCE_TYPE, _provenance(report, digests))}
    found[TESTS] = _statement(about, TEST_TYPE, _tests(report, digests))
    if report.decision == "passed":
        found[DECISION] = _statement(about, DECISION_TYPE, _decision(report, digests, created))
    return found


def outcomes(checks: Iterable[CheckRecord], disclosed: Collection[str] = ()) -> dict[str, Any]:
    """Return verdicts in the words of in-toto's test result: *unknown* is no pass, nor is what a policy waives.

    The result of all is that of the worst; of no check at all it is no pass.

    Args:
        checks: that were made.
        disclosed: ids of those that promise nothing, of which an *unknown* one is a warning.
    """
    found: dict[str, list[str]] = {"PASSED": [], "WARNED": [], "FAILED": []}
    for check in checks:
        known = "reported" if check.verdict == "unknown" and check.id in disclosed else check.verdict
        result = _RESULTS[known]
        found["WARNED" if check.waiver and result == "PASSED" else result].append(check.id)
    return {
        "result": next((result for result in ("FAILED", "WARNED", "PASSED") if found[result]), "FAILED"),
        "passedTests": found["PASSED"],
        "warnedTests": found["WARNED"],
        "failedTests": found["FAILED"],
    }


def properties(report: ReleaseReport) -> list[str]:
    """Return what the decision says was shown; what was reported without a gate is not among it."""
    passed = [f"PUBLISHER_CLAIM_PASSED:{claim.id}" for claim in report.claims if claim.verdict == "passed"]
    waived = [f"PUBLISHER_CHECK_WAIVED:{check.id}" for check in checks(report) if check.waiver]
    return ["PUBLISHER_RELEASE_PASSED", *sorted(passed), *sorted(waived)]


def policies(report: ReleaseReport, digests: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what the decision was made by: the manifest's gates, and the policy where there is one.

    Args:
        report: of the release.
        digests: path -> sha256 of the payload.
    """
    own = [_resource(RESOLVED, digests[RESOLVED])]
    return [*own, _resource(report.policy.name, report.policy.sha256)] if report.policy else own


def decided_at(predicate: Mapping[str, Any]) -> datetime | None:
    """Return the time that a decision's statement says; None: it says none that can be read."""
    said = predicate.get("timeCreated")
    try:
        found = datetime.fromisoformat(said) if isinstance(said, str) else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def _statement(about: list[dict[str, Any]], kind: str, predicate: dict[str, Any]) -> dict[str, Any]:
    return {"_type": STATEMENT_TYPE, "subject": about, "predicateType": kind, "predicate": predicate}


def _resource(name: str, digest: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest}}


def _provenance(report: ReleaseReport, digests: Mapping[str, str]) -> dict[str, Any]:
    base = {"name": report.model.source, "digest": {"sha256": report.model.digest}}
    plugins = [
        {"name": f"{plugin.kind}/{plugin.name}", "digest": {"sha256": plugin.origin.digest}}
        for plugin in report.plugins
        if plugin.origin.digest
    ]
    inputs = [_resource(f"{step.id}/{name}", digest) for step in report.steps for name, digest in step.inputs.items()]
    steps = [{"id": step.id, "name": step.name, "version": step.version} for step in report.steps]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "manifest": _resource(RESOLVED, digests[RESOLVED]),
                "manifestAsWritten": {"digest": {"sha256": report.manifest_sha256}},
                "name": report.name,
                "version": report.version,
            },
            "internalParameters": {"steps": steps, "versions": report.versions, "buildLevel": LEVEL},
            "resolvedDependencies": [base, *plugins, *inputs],
        },
        "runDetails": {
            "builder": {"id": TOOL, "version": {"model-publisher": report.versions.get("publisher", "unknown")}}
        },
    }


def _tests(report: ReleaseReport, digests: Mapping[str, str]) -> dict[str, Any]:
    evidence = sorted({REPORTS + check.evidence for check in checks(report) if check.evidence})
    files = [_resource(path, digests[path]) for path in (RESOLVED, REPORT, *evidence)]
    return {**outcomes(checks(report), disclosed(report)), "configuration": files}


def _decision(report: ReleaseReport, digests: Mapping[str, str], created: datetime) -> dict[str, Any]:
    return {
        "verifier": {"id": TOOL, "policies": policies(report, digests)},
        "timeCreated": created.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "properties": properties(report),
    }
