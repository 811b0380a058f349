"""The report as JSON: the record itself, of which every other form is a view."""

from __future__ import annotations

import json
from typing import ClassVar

from publisher.api import PluginError, ReleaseReport, ReportFormat


class JsonRecord(ReportFormat):
    """Canonical JSON: sorted keys, two spaces, UTF-8, a final newline. ``ReleaseReport.parse`` of it is the report."""

    name: ClassVar[str] = "json"
    version: ClassVar[str] = "1"
    filename: ClassVar[str] = "report.json"
    summary: ClassVar[str] = "The record itself, for machines; docs/reference/report.schema.json describes it."

    def render(self, report: ReleaseReport) -> bytes:
        """Return the record.

        Raises:
            PluginError: a plugin put something into the report that JSON cannot hold.
        """
        try:
            # not as_json(), which would turn NaN into null without a word
            return (
                json.dumps(report.model_dump(), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False).encode()
                + b"\n"
            )
        except (TypeError, ValueError) as error:
            raise PluginError(
                f"the report holds a value that is no JSON: {error}",
                hint="A step's parameters or a metric's details must be finite numbers, text, lists and objects.",
            ) from error
