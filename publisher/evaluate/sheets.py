"""Calibration sheets of a release's scorers: which one is about a concept, and whether it holds here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from publisher.api import CalibrationSheet, Concept, ScorerCard, ScorerErrors
from publisher.errors import UsageError
from publisher.evaluate.context import ReleaseScorer, Unmeasured
from publisher.model.files import json_bytes
from publisher.program import command
from publisher.strict_json import JsonError, strict_object

FOLDER = "calibration/"
"""Where sheets lie among the reports of a package."""


def read_sheet(data: bytes, where: str) -> CalibrationSheet:
    """Return the sheet in a file.

    Args:
        data: content of the file.
        where: names the file in the message.

    Raises:
        UsageError: it is no calibration sheet.
    """
    try:
        return CalibrationSheet.parse(strict_object(data))
    except (JsonError, ValidationError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        hint = f"Make one with: {command('calibrate --help')}"
        raise UsageError(f"is no calibration sheet: {reason}", where=where, hint=hint) from error


def named(scorer: str, sheets: Iterable[tuple[str, CalibrationSheet]]) -> dict[str, CalibrationSheet]:
    """Return the sheets of a scorer by the file that each becomes among the reports.

    Args:
        scorer: its id.
        sheets: each with the file that it comes from.

    Raises:
        UsageError: two are about one concept.
    """
    found: dict[str, CalibrationSheet] = {}
    for where, sheet in sheets:
        word = re.sub(r"[^a-z0-9]+", "-", sheet.label.lower()).strip("-") or "label"
        name = f"{FOLDER}{scorer}.{sheet.kind}.{word}.json"
        if name in found:
            what = f"is a second calibration of the scorer {scorer!r} about the {sheet.kind} {sheet.label!r}"
            raise UsageError(what, where=where, hint="Leave one of them out of the manifest.")
        found[name] = sheet
    return found


def sheet_bytes(sheet: CalibrationSheet) -> bytes:
    """Return the file of a sheet."""
    return json_bytes(sheet.as_json())


def sheet_of(scorer: ReleaseScorer, concept: Concept) -> tuple[str, CalibrationSheet] | None:
    """Return the sheet about a concept, with its file among the reports; None: there is none."""
    of = ((name, one) for name, one in scorer.sheets.items() if (one.kind, one.label) == (concept.kind, concept.label))
    return next(of, None)


def require_fit(
    scorer: ReleaseScorer, concept: Concept, card: ScorerCard | None = None, size: tuple[int, int] | None = None
) -> None:
    """Make sure that the sheet about a concept, if there is one, holds for the scorer as it judges here.

    Args:
        scorer: of the concept.
        concept: of a check.
        card: of the scorer; None: its weights are not compared.
        size: height and width of the images, in pixels; None: not compared.

    Raises:
        Unmeasured: it does not; the message says what differs.
    """
    found = sheet_of(scorer, concept)
    if found is None:
        return
    facts: dict[str, object] = {"scorer": scorer.scorer.name, "version": scorer.scorer.version, "params": scorer.params}
    if card is not None:
        facts |= {"weights": card.weights, "inputs": dict(scorer.inputs)}
    if size is not None:
        facts["size"] = size
    if different := found[1].difference(**facts):
        raise Unmeasured(f"the calibration sheet of {scorer.id!r} about {concept.id!r} does not hold here: {different}")


def known_errors(scorer: ReleaseScorer) -> str:
    """Return what the sheets of a scorer say, in one sentence for its card; empty: it has none, and says itself."""
    counts = (
        f"{sheet.label}: seen in {sheet.positives.hits} of {sheet.positives.n} images of it and in"
        f" {sheet.negatives.hits} of {sheet.negatives.n} others"
        for sheet in scorer.sheets.values()
    )
    return "; ".join(counts)


def errors_of_sheet(concept: Concept, scorers: Sequence[ReleaseScorer]) -> ScorerErrors | None:
    """Return the counts of the sheet about a concept; None: there is none.

    Of several scorers that judge together the first one's sheet counts that has one. What they disagree about counts
    against the claim, so together they err no more in its favour than any of them alone.

    Args:
        concept: of a check.
        scorers: that judge it.
    """
    found = (sheet_of(one, concept) for one in scorers)
    return next((sheet.errors(file) for file, sheet in filter(None, found)), None)
