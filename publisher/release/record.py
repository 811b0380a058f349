"""The release report, put together from what each room found."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

from publisher import __version__
from publisher.api import GoneConcept, MatrixCell, ModelRecord, PublisherRecord, ReleaseReport, ReportFormat
from publisher.engine.device import versions
from publisher.engine.run import Hardened
from publisher.evaluate.checks import Evaluation
from publisher.manifest.resolve import Resolved
from publisher.release.prepare import PreparedRelease

LIMITS = (
    "The figures hold for the prompts, seeds, sampler and guidance in the evidence; what nobody tried is not known.",
    "Anyone who has the base model's weights can use them instead, or merge them back in.",
    "The verdicts are as good as the scorer that judged the images; its card says what is known of its errors.",
)
VARIANT = (
    "The checks were made with the weights as they are. Their fp16 variant is the same numbers rounded to half"
    " precision; it was not tested by itself."
)


def make_report(
    prepared: PreparedRelease,
    hardened: Hardened,
    found: Evaluation,
    matrix: Sequence[MatrixCell],
    formats: Sequence[type[ReportFormat]],
    *,
    files: Mapping[str, str],
    carried: Mapping[str, Any],
) -> ReleaseReport:
    """Make the record of a release. It holds no time and no path: the same release gives the same bytes.

    Args:
        prepared: what was planned.
        hardened: what the steps did.
        found: what the checks found.
        matrix: claims after each step.
        formats: forms of the report that are rendered.
        files: path -> sha256 of what was laid out and judged.
        carried: what the record says of the package's safeguards, field by field.
    """
    resolved = prepared.resolved
    used = [entry.record() for entry in prepared.used]
    used += [entry.record() for entry in prepared.registry.all("report_format") if entry.cls in formats]
    return ReleaseReport(
        name=resolved.release.name,
        version=resolved.release.version,
        license=resolved.release.license,
        decision=found.verdict,
        model=_model(prepared, hardened),
        files=dict(files),
        publisher=publisher_of(resolved),
        concepts=gone_concepts(resolved),
        steps=tuple(result.record for result in hardened.results),
        claims=found.claims,
        matrix=tuple(matrix),
        scorers=dict(found.scorers),
        plugins=tuple(used),
        pairs=found.pairs if resolved.evaluate.images else (),
        permeabilities=found.permeabilities,
        seed=resolved.seed,
        device=str(prepared.device),
        versions={"python": platform.python_version(), "publisher": __version__, **versions()},
        manifest_sha256=resolved.manifest_sha256,
        limits=(*LIMITS, *(VARIANT for _ in resolved.release.variants[:1]), *prepared.dropped),
        **carried,
    )


def publisher_of(resolved: Resolved) -> PublisherRecord:
    """Return what a manifest says of its publisher, as a report has it."""
    said = resolved.release
    return PublisherRecord(
        provider=said.provider or "", contact=said.contact or "", acceptable_use=said.acceptable_use or ""
    )


def gone_concepts(resolved: Resolved) -> tuple[GoneConcept, ...]:
    """Return the concepts that were to go, as a report has them."""
    return tuple(
        GoneConcept(
            id=one.id, name=one.name, kind=one.kind, synonyms=one.synonyms, hazard=resolved.hazards.get(one.id, "")
        )
        for one in resolved.scope.concepts
    )


def _model(prepared: PreparedRelease, hardened: Hardened) -> ModelRecord:
    base = hardened.states[0].base
    return ModelRecord(
        source=prepared.resolved.model,
        family=base.anatomy.family,
        digest=base.digest,
        parameters=base.parameters,
        bytes=base.bytes,
    )
