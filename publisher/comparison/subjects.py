"""Reports with their evidence, as they are compared: read strictly, and nothing of a package is run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from publisher.api import CheckRecord, Params, ReleaseReport
from publisher.api.evidence import EvidenceRow, SearchRow
from publisher.errors import UsageError
from publisher.package.content import json_lines
from publisher.report.reader import find, load
from publisher.strict_json import JsonError, strict_object

R = TypeVar("R", bound=Params)
MOST_BYTES = 256 * 1024 * 1024
"""Largest evidence file that is read."""


@dataclass(frozen=True)
class Subject:
    """One model that is compared."""

    name: str
    """Name in the table: of its release, or the one that was given."""
    report: ReleaseReport
    rows: Mapping[str, Sequence[EvidenceRow]]
    """Check's id -> its evidence, one row for each image; checks by training and by searching have none here."""


def read_subject(path: Path, name: str = "") -> Subject:
    """Read the report of a package, a report folder or a JSON file, and the evidence beside it.

    The signature is not checked: ``publisher verify`` does. The evidence has to have the digests that the report names.

    Args:
        path: of a package, a report folder, or ``report.json``.
        name: in the table; default the release's name and version.

    Raises:
        UsageError: there is no report, or its evidence is missing or another one.
    """
    report = load(path)
    folder = find(path).parent
    checks = [check for claim in report.claims for check in claim.checks]
    asked = [check for check in checks if check.evidence and not (check.trials or check.searches)]
    rows = {check.id: _rows(check, folder, EvidenceRow) for check in asked}
    return Subject(name or f"{report.name} {report.version}", report, rows)


def read_searches(path: Path, report: ReleaseReport) -> dict[str, tuple[SearchRow, ...]]:
    """Read the evidence of the checks whose attacks searched: check's id -> its searches.

    Args:
        path: of the package or report folder.
        report: that lies there.

    Raises:
        UsageError: evidence is missing or another one.
    """
    checks = [check for claim in report.claims for check in claim.checks if check.searches and check.evidence]
    return {check.id: _rows(check, find(path).parent, SearchRow) for check in checks}


def _rows(check: CheckRecord, folder: Path, kind: type[R]) -> tuple[R, ...]:
    path = folder / check.evidence
    hint = "Give the package or the whole report folder: models are compared image by image."
    if ".." in Path(check.evidence).parts or Path(check.evidence).is_absolute():
        raise UsageError(f"check {check.id!r} names evidence outside the report's folder", where=str(folder))
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"larger than {MOST_BYTES // 1024**2} MiB, which no evidence is", where=str(path))
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the evidence cannot be read: {error.strerror}", where=str(path), hint=hint) from error
    if hashlib.sha256(data).hexdigest() != check.evidence_sha256:
        raise UsageError("is not the evidence that the report was made from", where=str(path), hint=hint)
    return parse_rows(data, kind, path)


def parse_rows(data: bytes, kind: type[R], path: Path) -> tuple[R, ...]:
    """Read lines of evidence.

    Args:
        data: of a file.
        kind: of its lines.
        path: of the file, for errors.

    Raises:
        UsageError: it is not as evidence is written.
    """
    try:
        return tuple(kind.parse(strict_object(line)) for line in json_lines(data))
    except (JsonError, ValidationError) as error:
        raise UsageError(f"is not as evidence is written: {error}"[:300], where=str(path)) from error
