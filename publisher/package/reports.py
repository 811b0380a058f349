"""Reports and attestations of a foreign package: V030 to V034. Its verdicts are made again from its own numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from publisher.api import CheckRecord, ReleaseReport
from publisher.api.params import Params
from publisher.api.searching import tells_nothing
from publisher.api.verdicts import judge, of_claim, overall
from publisher.codes import Code, Finding
from publisher.package import dsse, sums
from publisher.package.layout import (
    ATTESTATIONS,
    BOM,
    CARD,
    DECISION,
    MAX_SIGNATURE_BYTES,
    MAX_TEXT_BYTES,
    PROVENANCE,
    REPORT,
    REPORTS,
    RESOLVED,
    SUMMARY,
    SUMS,
    TESTS,
    former_tests,
    is_judged,
    is_payload,
)
from publisher.package.measurements import Recomputed, check_measurements
from publisher.package.statements import (
    BUILD_TYPE,
    DECISION_TYPE,
    PROVENANCE_TYPE,
    TEST_TYPE,
    decided_at,
    outcomes,
    policies,
    properties,
    subjects,
)
from publisher.package.summary import ReleaseSummary, attestations, checks, disclosed, summarise
from publisher.package.tree import Tree
from publisher.safeguards import ALL

T = TypeVar("T", bound=Params)
REQUIRED = (SUMS, SUMMARY, REPORT, RESOLVED, BOM, CARD)


def check_reports(
    tree: Tree, signed: Mapping[str, str], documents: Mapping[str, Any], anchor: dsse.Anchor
) -> tuple[ReleaseSummary | None, list[Finding], Recomputed]:
    """Check everything that the package says about itself.

    What was signed is compared with what was signed: a file that was changed afterwards is a finding of its own, and
    what depends on it is not asked.

    Args:
        tree: the folder; only files with a digest are opened.
        signed: path -> sha256 of all files that were signed.
        documents: report and summary as JSON data, where they could be read.
        anchor: who must have signed the attestations too.

    Returns:
        The summary, if it can be read; what is wrong; and which numbers were made again.
    """
    done = Recomputed()
    findings = [Finding(Code.REPORT_ABSENT, path, "is not there") for path in REQUIRED if path not in signed]
    findings += _sums(tree, signed)
    report, problems = _record(documents, REPORT, ReleaseReport)
    findings += problems
    summary, problems = _record(documents, SUMMARY, ReleaseSummary)
    findings += problems
    if report is not None:
        findings += [
            *_files(report, signed),
            *_verdicts(report),
            *_evidence(report, signed),
            *_safeguards(tree, signed, report),
        ]
        findings += [*_attestations(tree, signed, report, anchor)]
        problems, done = check_measurements(tree, report)
        findings += problems
        if summary is not None and summary != summarise(report, former=_is_former(report, signed)):
            findings.append(Finding(Code.REPORT_OTHER, SUMMARY, "is not the summary of the report"))
    return summary, findings, done


def _record(documents: Mapping[str, Any], path: str, kind: type[T]) -> tuple[T | None, list[Finding]]:
    if path not in documents:
        return None, []
    try:
        return kind.parse(documents[path]), []
    except (ValidationError, TypeError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else "is not a JSON object"
        return None, [Finding(Code.REPORT_ABSENT, path, f"cannot be read as a record: {reason}")]


def _first(error: ValidationError) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _sums(tree: Tree, signed: Mapping[str, str]) -> list[Finding]:
    data = tree.read(SUMS, MAX_TEXT_BYTES) if SUMS in tree.digests else None
    if data is None:
        return []
    try:
        listed = sums.parse(data)
    except ValueError as error:
        return [Finding(Code.REPORT_ABSENT, SUMS, str(error))]
    payload = {path: digest for path, digest in signed.items() if is_payload(path)}
    differing = sorted(path for path in {*listed, *payload} if listed.get(path) != payload.get(path))
    if not differing:
        return []
    more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    return [Finding(Code.REPORT_OTHER, SUMS, f"does not agree on {differing[0]!r}{more}")]


def _files(report: ReleaseReport, signed: Mapping[str, str]) -> Iterator[Finding]:
    """Compare what the report was made about with what is signed beside it."""
    judged = {path: digest for path, digest in signed.items() if is_judged(path)}
    differing = sorted(path for path in {*judged, *report.files} if judged.get(path) != report.files.get(path))
    if not report.files:
        yield Finding(Code.REPORT_ABSENT, REPORT, "does not name the files that were judged")
    elif differing:
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        yield Finding(Code.REPORT_OTHER, REPORT, f"was made about another {differing[0]!r}{more}")


def _verdicts(report: ReleaseReport) -> Iterator[Finding]:
    for check in checks(report):
        if problem := _check_problem(check):
            yield Finding(Code.REPORT_CONTRADICTS, REPORT, f"check {check.id} is called {check.verdict!r}: {problem}")
    for claim in report.claims:
        expected = of_claim(((one.gate, one.verdict) for one in claim.checks), discloses=claim.discloses)
        if claim.verdict != expected:
            yield Finding(
                Code.REPORT_CONTRADICTS,
                REPORT,
                f"claim {claim.id} is called {claim.verdict!r}, its checks say {expected!r}",
            )
    expected = overall(claim.verdict for claim in report.claims)
    if report.decision != expected:
        yield Finding(
            Code.REPORT_CONTRADICTS, REPORT, f"the decision is {report.decision!r}, the claims say {expected!r}"
        )
    if report.decision != "passed":
        yield Finding(Code.NOT_PASSED, REPORT, f"the decision is {report.decision!r}")


def _check_problem(check: CheckRecord) -> str | None:
    """Return why a verdict is not what its numbers say. *Unknown* is allowed for good numbers, never for bad."""
    if check.measurement is None:
        return None if check.verdict == "unknown" else "nothing was measured"
    if check.searches and check.verdict == "reported" and tells_nothing(check.measurement):
        return None
    expected, reason = judge(check.gate, check.measurement)
    if check.verdict == expected or (check.verdict == "unknown" and expected in ("passed", "reported")):
        return None
    return f"by its numbers it is {expected!r} ({reason})"


def _evidence(report: ReleaseReport, signed: Mapping[str, str]) -> Iterator[Finding]:
    for check in checks(report):
        if check.measurement is not None and not check.evidence:
            yield Finding(Code.REPORT_ABSENT, REPORT, f"check {check.id} has numbers and no evidence")
        elif check.evidence and signed.get(REPORTS + check.evidence) != check.evidence_sha256:
            yield Finding(Code.REPORT_ABSENT, REPORTS + check.evidence, f"is not the evidence of check {check.id}")
    for name, card in report.scorers.items():
        for file, digest in card.sheets.items():
            if signed.get(REPORTS + file) != digest:
                yield Finding(Code.REPORT_ABSENT, REPORTS + file, f"is not the calibration sheet of the scorer {name}")


def _safeguards(tree: Tree, signed: Mapping[str, str], report: ReleaseReport) -> Iterator[Finding]:
    """Compare what a report says of safeguards with the package; what was changed has its own finding."""
    for safeguard in ALL:
        path = safeguard.path
        if path in signed and path not in tree.digests:
            continue

        def read(path: str = path) -> bytes | None:
            return tree.read(path, MAX_TEXT_BYTES) if path in tree.digests else None

        if problem := safeguard.contradiction(report, read):
            yield Finding(Code.REPORT_OTHER, REPORT, problem)


def _attestations(
    tree: Tree, signed: Mapping[str, str], report: ReleaseReport, anchor: dsse.Anchor
) -> Iterator[Finding]:
    required = set(attestations(report, former=_is_former(report, signed)))
    present = {path for path in signed if path.startswith(ATTESTATIONS)}
    for path in sorted(required - present):
        yield Finding(Code.REPORT_ABSENT, path, "is not there")
    for path in sorted(present - required):
        yield Finding(Code.REPORT_OTHER, path, "is none that a release has")
    payload = {path: digest for path, digest in signed.items() if is_payload(path)}
    about = subjects(signed.get(SUMS, ""), payload)
    expectations = _expectations(report, signed)
    for path in sorted(required & present & tree.digests.keys()):
        yield from _attestation(tree, path, anchor, about, expectations[path])


def _is_former(report: ReleaseReport, signed: Mapping[str, str]) -> bool:
    """Return whether a package has an attestation of tests for each check, as packages had once."""
    return TESTS not in signed and any(former_tests(check.id) in signed for check in checks(report))


Expectation = tuple[str, Callable[[Mapping[str, Any]], bool]]


def _expectations(report: ReleaseReport, signed: Mapping[str, str]) -> dict[str, Expectation]:
    """Return path -> predicate type, and what its predicate must say about this report."""
    found: dict[str, Expectation] = {
        PROVENANCE: (PROVENANCE_TYPE, lambda predicate: _made_here(predicate, report)),
        DECISION: (DECISION_TYPE, lambda predicate: _decided(predicate, report, signed)),
    }
    found[TESTS] = (TEST_TYPE, _says(outcomes(checks(report), disclosed(report))))
    for check in checks(report):
        found[former_tests(check.id)] = (TEST_TYPE, _says(outcomes([check])))
    return found


def _says(expected: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    return lambda predicate: all(predicate.get(name) == value for name, value in expected.items())


def _decided(predicate: Mapping[str, Any], report: ReleaseReport, signed: Mapping[str, str]) -> bool:
    verifier = predicate.get("verifier")
    named = verifier.get("policies") if isinstance(verifier, dict) else None
    known = predicate.get("properties") == properties(report) and named == policies(report, signed)
    return known and decided_at(predicate) is not None


def _made_here(predicate: Mapping[str, Any], report: ReleaseReport) -> bool:
    try:
        definition = predicate["buildDefinition"]
        parameters, dependencies = definition["externalParameters"], definition["resolvedDependencies"]
        made = (definition["buildType"], parameters["name"], parameters["version"], dependencies[0]["digest"]["sha256"])
    except (KeyError, IndexError, TypeError):
        return False
    return made == (BUILD_TYPE, report.name, report.version, report.model.digest)


def _attestation(
    tree: Tree, path: str, anchor: dsse.Anchor, about: list[dict[str, Any]], expectation: Expectation
) -> Iterator[Finding]:
    data = tree.read(path, MAX_SIGNATURE_BYTES)
    if data is None:
        return
    try:
        statement = dsse.open_statement(data, anchor)
    except dsse.BundleError as error:
        yield Finding(Code.REPORT_ABSENT, path, str(error))
        return
    kind, agrees = expectation
    if statement.get("subject") != about:
        yield Finding(Code.REPORT_OTHER, path, "is about other files")
    if statement.get("predicateType") != kind or not agrees(statement["predicate"]):
        yield Finding(Code.REPORT_OTHER, path, "does not say what the report says")
