"""What a plan or a report says of single places, in one form: SARIF and log annotations are views of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from publisher.api import CheckRecord, ClaimRecord, ReleaseReport, WaiverRecord
from publisher.api.verdicts import of_claim
from publisher.ci.places import Sites, relative
from publisher.errors import ManifestError, Problem, PublisherError
from publisher.manifest.places import Mark
from publisher.report import verdicts
from publisher.report.rows import row

Level = Literal["error", "warning", "note"]
MANIFEST_RULE = "manifest"
"""Rule of problems that no check has."""
POLICY_RULE = "policy"
"""Rule of what a policy asks for and does not get."""
DECISION_RULE = "release"
"""Rule of what is wrong with a release as a whole."""
PROBLEM_KEY, CHECK_KEY = "publisherProblem/v1", "publisherCheck/v1"
"""Names of the fingerprints: what makes two results the same one in two runs."""


@dataclass(frozen=True)
class Rule:
    """What a result is about: a check of the release, or the manifest itself."""

    id: str
    sentence: str
    """What it promises."""
    help: str = ""
    """What it does not say."""


@dataclass(frozen=True)
class Site:
    """A place in a file."""

    file: str
    """Path as seen from the current folder."""
    line: int | None = None
    """1-based; None: the file as a whole."""
    column: int | None = None
    """1-based."""


@dataclass(frozen=True)
class Annotation:
    """One result: what is wrong, how much, where."""

    rule: str
    """Id of the rule."""
    level: Level
    title: str
    """What it is about, in a few words."""
    message: str
    """What is wrong; may have several lines."""
    site: Site | None
    """None: nobody said which file it belongs to."""
    fingerprint: tuple[str, str]
    """Name and value of what stays the same from run to run."""
    waived: str = ""
    """Why it does not count here, who said so and until when; empty: it counts."""


def rules_of(reports: Iterable[ReleaseReport]) -> list[Rule]:
    """Return a rule for each check of these reports, and for each claim that no check tests."""
    found: dict[str, Rule] = {}
    for report in reports:
        for claim in report.claims:
            for name in [check.id for check in claim.checks] or [claim.id]:
                found.setdefault(name, Rule(name, claim.sentence, "\n".join(claim.limits)))
    return list(found.values())


def of_report(report: ReleaseReport, sites: Sites | None) -> list[Annotation]:
    """Return what did not pass: failed checks are errors, those that could not be decided are warnings.

    A check that passed by its own gate and has a waiver of the policy is there too, as waived.

    Args:
        report: of a release.
        sites: the manifest that it was made from; None: nobody gave it.
    """
    found = []
    for claim in report.claims:
        found += [one for check in claim.checks for one in _check(report, claim, check, sites)]
        if not claim.checks:
            found.append(_about(report, claim.id, "warning", "No check tests this claim.", _site(sites, claim, None)))
    whole = _about(report, DECISION_RULE, "error", "", Site(sites.file) if sites else None)
    found += [_said(whole, line) for line in (*verdicts.contradictions(report), *verdicts.broken_rules(report))]
    return found


def _said(annotation: Annotation, message: str) -> Annotation:
    return replace(annotation, message=message, fingerprint=(PROBLEM_KEY, _digest(annotation.title, message)))


def _check(report: ReleaseReport, claim: ClaimRecord, check: CheckRecord, sites: Sites | None) -> Iterable[Annotation]:
    found = row(check)
    counts = of_claim([(check.gate, found.verdict)], discloses=claim.discloses)
    good = counts in ("passed", "reported")
    if good and check.waiver is None:
        return
    words = f"{claim.sentence}: {found.verdict}. {found.line('reason', brief=False)}\n{found.cells['reason']}"
    level: Level = "error" if found.verdict == "failed" else "warning"
    result = _about(report, check.id, level, words, _site(sites, claim, check))
    yield replace(result, waived=_exception(check.waiver)) if good and check.waiver else result


def _exception(waiver: WaiverRecord) -> str:
    return f"until {waiver.expires} by {waiver.approver}: {waiver.reason}"


def _about(report: ReleaseReport, rule: str, level: Level, message: str, site: Site | None) -> Annotation:
    title = f"{report.name} {report.version}: {rule}"
    return Annotation(rule, level, title, message, site, (CHECK_KEY, _digest(report.name, rule)))


def _site(sites: Sites | None, claim: ClaimRecord, check: CheckRecord | None) -> Site | None:
    if sites is None:
        return None
    return site_of(sites, sites.check(check.id if check else claim.id, claim.steps))


def site_of(sites: Sites, mark: Mark | None) -> Site:
    """Return a place in a file; the file as a whole where there is no mark."""
    return Site(sites.file, mark.line, mark.column) if mark else Site(sites.file)


def of_error(error: PublisherError, path: Path) -> list[Annotation]:
    """Return an error about a manifest: every problem at its place, anything else about the file as a whole.

    Args:
        error: of a plan.
        path: of the manifest.
    """
    if isinstance(error, ManifestError):
        file = relative(Path(error.path))
        return [_problem(problem, file) for problem in error.problems]
    what = f"{error.where}: {error.what}" if error.where else error.what
    text = "\n".join(part for part in (what, error.hint) if part)
    file = relative(path)
    fingerprint = (PROBLEM_KEY, _digest(file, text))
    return [Annotation(MANIFEST_RULE, "error", _title(file), text, Site(file), fingerprint)]


def _problem(problem: Problem, file: str) -> Annotation:
    text = "\n".join(part for part in (problem.message, problem.hint) if part)
    site = Site(file, problem.line, problem.column)
    return Annotation(MANIFEST_RULE, "error", _title(file), text, site, (PROBLEM_KEY, _digest(file, text)))


def of_plan(
    name: str, undecidable: Mapping[str, tuple[str, Sequence[str]]], warnings: Iterable[str], sites: Sites
) -> list[Annotation]:
    """Return what a plan says of single places: checks that cannot be decided, and what it warns of.

    Args:
        name: of the release.
        undecidable: check's id -> why, and the steps that make its claim.
        warnings: sentences about the manifest as a whole.
        sites: the manifest.
    """
    found = [
        Annotation(
            check,
            "warning",
            f"{name}: {check}",
            f"Cannot be decided: {why}",
            site_of(sites, sites.check(check, steps)),
            (CHECK_KEY, _digest(name, check)),
        )
        for check, (why, steps) in undecidable.items()
    ]
    title, whole = _title(sites.file), Site(sites.file)
    notes = [(text, (PROBLEM_KEY, _digest(sites.file, text))) for text in warnings]
    return [*found, *(Annotation(MANIFEST_RULE, "note", title, text, whole, key) for text, key in notes)]


def of_policy(answer: Mapping[str, Any] | None, name: str) -> list[Annotation]:
    """Return what a policy refuses, at its own lines; nothing without a policy.

    Args:
        answer: of the policy, as JSON data.
        name: of the release.
    """
    if answer is None:
        return []
    file = relative(Path(answer["file"]))
    return [
        Annotation(
            POLICY_RULE,
            "error",
            f"policy for {name}",
            one["message"],
            Site(file, one["line"], one["column"]),
            (PROBLEM_KEY, _digest(file, name, one["message"])),
        )
        for one in answer["breaches"]
    ]


def _title(file: str) -> str:
    return f"manifest {file}"


def _digest(*parts: str) -> str:
    """Return the sha256 of a few texts, joined as ``name/check`` is."""
    return hashlib.sha256("/".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
