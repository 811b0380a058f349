"""What a release does at its very end, tried at plan: hours later it would be too late to learn of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from publisher.api import ClaimRecord, ModelRecord, ReleaseReport
from publisher.evaluate.measure import unknown
from publisher.package.sign import now
from publisher.report import render_all, require_names

if TYPE_CHECKING:
    from publisher.release.prepare import Prepared


def require_ends(prepared: Prepared) -> None:
    """Try what a release does at its very end: the forms of its report, and the time to sign with.

    Raises:
        PluginError: a report format has no proper file name, or cannot write a report of which all is unknown.
        UsageError: ``SOURCE_DATE_EPOCH`` holds no time.
    """
    formats = [entry.cls for entry in prepared.registry.all("report_format")]
    require_names(formats)
    render_all(_blank(prepared), formats)
    if prepared.resolved.release.date is None:
        now()


def _blank(prepared: Prepared) -> ReleaseReport:
    """Return the report of a release of which nothing has been measured yet."""
    resolved, model = prepared.resolved, prepared.model
    claims = [
        ClaimRecord(
            id=item.claim.id,
            step=item.step,
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
