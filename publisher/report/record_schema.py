"""The published JSON Schema of ``report.json``."""

from __future__ import annotations

from typing import Any

from publisher.api import ReleaseReport


def schema() -> dict[str, Any]:
    """Return JSON Schema (2020-12) of the release report; ``docs/reference/report.schema.json`` is this."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ReleaseReport.model_json_schema()}
