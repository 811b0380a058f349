"""What a release does at its very end, tried at plan: hours later it would be too late to learn of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from publisher.api import ClaimRecord, ModelRecord, PluginError, ReleaseReport, ReportFormat
from publisher.evaluate.measure import unknown
from publisher.package.layout import PICTURES, REPORTS, path_problem, type_problem
from publisher.package.sign import now
from publisher.report import render_each
from publisher.report.reader import TIMINGS

if TYPE_CHECKING:
    from publisher.release.prepare import PreparedRelease

OWN = (TIMINGS, PICTURES.removeprefix(REPORTS))
"""What a release writes beside the forms of its report."""
FILENAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def require_ends(prepared: PreparedRelease, *, slow: bool) -> None:
    """Try what a release does at its very end: the forms of its report, and the time to sign with.

    What it protects: a release that has run for hours does not fail at its report. A form that crashes on any report,
    a plugin's claim that no form can write, two forms of one name: all stop it before anything runs.

    Args:
        prepared: the release.
        slow: also render forms that take long. A release does, at its beginning; a plan does not.

    Raises:
        PluginError: a report format has no proper file name, or cannot write a report of which all is unknown.
        UsageError: ``SOURCE_DATE_EPOCH`` holds no time.
    """
    formats = [entry.cls for entry in prepared.registry.all("report_format")]
    require_names(formats)
    render_all(_blank(prepared), (form for form in formats if slow or form.quick))
    if prepared.resolved.release.date is None:
        now()


def _blank(prepared: PreparedRelease) -> ReleaseReport:
    """Return the report of a release of which nothing has been measured yet."""
    resolved, model = prepared.resolved, prepared.model
    claims = [
        ClaimRecord(
            id=item.claim.id,
            steps=item.steps,
            sentence=item.claim.sentence,
            binds=item.claim.binds,
            limits=item.claim.limits,
            verdict="unknown",
            checks=tuple(unknown(check, "it has not been measured yet") for check in item.claim.checks),
        )
        for item in prepared.claims
    ]
    base = ModelRecord(
        source=resolved.model, family=model.family.name if model else "", digest="", parameters=0, bytes=0
    )
    return ReleaseReport(
        name=resolved.release.name,
        version=resolved.release.version,
        license=resolved.release.license,
        decision="unknown",
        model=base,
        steps=(),
        claims=tuple(claims),
        seed=resolved.seed,
        device=str(prepared.device),
        versions={},
        manifest_sha256=resolved.manifest_sha256,
    )


def render_all(report: ReleaseReport, formats: Iterable[type[ReportFormat]]) -> Mapping[str, bytes]:
    """Render ``report`` in every form.

    Args:
        report: the record.
        formats: classes of forms; each is made once.

    Returns:
        File name -> the whole file, sorted by name.

    Raises:
        PluginError: two forms have one file name, a name is no plain file name, or a form crashed or gave no bytes.
    """
    formats = list(formats)
    require_names(formats)
    files, problems = render_each(report, formats)
    if problems:
        raise problems[0]
    return files


def require_names(formats: Iterable[type[ReportFormat]]) -> None:
    """Make sure that every form has a file name of its own that a report can have.

    Raises:
        PluginError: one has not.
    """
    seen = set()
    for form in formats:
        name = form.filename
        if not isinstance(name, str) or not FILENAME.fullmatch(name):
            raise PluginError(
                f"report format {form.name!r} wants to write {name!r}",
                hint="A report's file name has lower-case letters, digits, dots, dashes and no folder.",
            )
        problem = path_problem(REPORTS + name) or type_problem(REPORTS + name)
        if problem:
            raise PluginError(f"report format {form.name!r} wants to write {name!r}, which {problem}")
        if name in seen:
            raise PluginError(f"two report formats want to write {name!r}; one of them is {form.name!r}")
        if name in OWN:
            raise PluginError(f"report format {form.name!r} wants to write {name!r}, which the release itself writes")
        seen.add(name)
