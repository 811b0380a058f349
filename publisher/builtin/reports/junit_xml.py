"""The report as JUnit XML, for CI systems: a suite for each claim, a case for each check's gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from publisher.api import CheckRecord, ClaimRecord, ReleaseReport, ReportFormat, Verdict
from publisher.api.verdicts import of_claim, worst
from publisher.report import verdicts
from publisher.report.relearning import curves_by_concept
from publisher.report.rows import CheckRow, rows
from publisher.report.wording import visible

if TYPE_CHECKING:
    from junitparser import TestCase, TestSuite


class JunitXml(ReportFormat):
    """A failed gate is a failure. One that could not be decided is an *error*, never skipped: skipped looks green."""

    name: ClassVar[str] = "junit"
    version: ClassVar[str] = "1"
    filename: ClassVar[str] = "junit.xml"
    summary: ClassVar[str] = "For CI systems: failed gates are failures, undecided ones are errors."

    def render(self, report: ReleaseReport) -> bytes:
        """Return the whole file, without times: a package's bytes do not depend on how fast a machine is."""
        return self.timed(report, {})

    def timed(self, report: ReleaseReport, seconds: Mapping[str, float]) -> bytes:
        """Return the whole file with the times of the checks that are known."""
        from junitparser import JUnitXml

        document = JUnitXml(visible(f"{report.name} {report.version}"))
        for claim in report.claims:
            document.add_testsuite(_suite(claim, seconds))
        claims = [verdicts.claim_verdict(claim) for claim in report.claims]
        if verdicts.decision(report) != worst(claims) or not claims:
            document.add_testsuite(_decision(report))
        document.update_statistics()  # type: ignore[no-untyped-call]  # junitparser annotates half of its methods
        return bytes(document.tostring()) + b"\n"  # type: ignore[no-untyped-call]


def _suite(claim: ClaimRecord, seconds: Mapping[str, float]) -> TestSuite:
    from junitparser import TestSuite

    suite = TestSuite(visible(f"{'+'.join(claim.steps)}/{claim.id}"))
    found = rows(claim.checks)
    for row in found:
        case = _check(claim, row)
        if row.record.id in seconds:
            case.time = round(seconds[row.record.id], 3)
        suite.add_testcase(case)
        for name, value in _steps(row.record):
            suite.add_property(name, value)
    checks = [(row.record.gate, row.verdict) for row in found]
    if verdicts.claim_verdict(claim) != of_claim(checks, discloses=claim.discloses) or not checks:
        message = "the claim's recorded verdict" if checks else "no check tests this claim"
        suite.add_testcase(_case(claim.id, claim.sentence, verdicts.claim_verdict(claim), message))
    return suite


def _check(claim: ClaimRecord, row: CheckRow) -> TestCase:
    name = f"{row.cells['check']}: {row.cells['gate']}"
    counts = of_claim([(row.record.gate, row.verdict)], discloses=claim.discloses)
    case = _case(claim.id, name, counts, row.cells["reason"])
    case.system_out = visible(f"{row.verdict}: {row.line('gate', brief=False)}")
    return case


def _steps(check: CheckRecord) -> list[tuple[str, str]]:
    """Return the median steps to one half, of each model on each concept, of a check by training."""
    return [
        (visible(f"{verdicts.title(check)}: steps to one half, {curves.concept}, {model.name}"), model.delay().words)
        for curves in curves_by_concept(check)
        for model in curves.models
    ]


def _decision(report: ReleaseReport) -> TestSuite:
    from junitparser import TestSuite

    suite = TestSuite("release")
    suite.add_testcase(_case("release", "decision", verdicts.decision(report), verdicts.sentence(report)))
    return suite


def _case(classname: str, name: str, verdict: Verdict, message: str) -> TestCase:
    from junitparser import Error, Failure, Skipped, TestCase

    case = TestCase(visible(name), visible(classname))
    if verdict == "failed":
        case.result = [Failure(visible(message), "gate")]
    elif verdict == "reported":
        case.result = [Skipped(visible(message), "reported")]
    elif verdict != "passed":
        case.result = [Error(visible(message), "undecided")]
    return case
