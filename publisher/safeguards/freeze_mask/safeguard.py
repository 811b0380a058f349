"""The freeze mask as a safeguard: what the rooms of a release ask of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from publisher.api import MaskRecord, ReleaseReport, TrainingParams
from publisher.api.freeze_mask import FILE, FreezeMask, Frozen
from publisher.codes import Finding
from publisher.model.state import State
from publisher.safeguards.base import Contents, Made, Safeguard
from publisher.safeguards.freeze_mask.attackers import masks_of
from publisher.safeguards.freeze_mask.card import freeze_mask
from publisher.safeguards.freeze_mask.final import mask_of
from publisher.safeguards.freeze_mask.findings import check_freeze_mask
from publisher.strict_json import JsonError, strict_object


class FreezeMaskSafeguard(Safeguard):
    """Names and digests of what a fine-tuning is to leave as it was published."""

    file = FILE
    conflict = (
        "{later!r} changes the denoiser after {earlier!r} has made the freeze mask: the release stops if it changes"
        " anything that is frozen. Put {earlier!r} behind {later!r}."
    )

    def carried(self, document: Mapping[str, Any]) -> str:  # noqa: ARG002 - it has no parts to name
        """Name it."""
        return "a freeze mask"

    def findings(self, document: Any, contents: Contents) -> Iterator[Finding]:
        """Compare the mask with the weights beside it."""
        yield from check_freeze_mask(document, contents.digests, contents.headers, contents.root)

    def contradiction(self, report: ReleaseReport, read: Callable[[], bytes | None]) -> str:
        """Compare the report's summary with the mask; whether the mask fits the weights is not asked here."""
        if report.freeze_mask is None:
            return ""
        data = read()
        try:
            described = data is not None and report.freeze_mask.describes(FreezeMask.parse(strict_object(data)))
        except (JsonError, ValidationError):
            described = False
        return "" if described else f"describes a freeze mask that {self.path} is not"

    def record(self, made: Sequence[Made], final: State) -> Mapping[str, Any]:
        """Summarise the mask, and refuse one of other weights than the final ones."""
        mask = mask_of(made, final)
        return {"freeze_mask": MaskRecord.of(mask)} if mask else {}

    def section(self, report: ReleaseReport, folder: str) -> str:
        """Return what is frozen, and how to honour it and to check that."""
        return freeze_mask(report, folder)

    def frozen(
        self, params: TrainingParams, folder: Path | None, seed: int, denoiser: str
    ) -> Mapping[str, tuple[Frozen, ...]]:
        """Return what the hardened model and its controls leave as it is."""
        return masks_of(params, folder, seed, denoiser)
