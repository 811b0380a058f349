"""``publisher schema``: JSON Schemas, for editors and for CI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from publisher.cli import output


def _manifest() -> dict[str, Any]:
    from publisher.manifest import manifest_schema
    from publisher.registry import load_registry

    return manifest_schema(load_registry().catalog())


def _report() -> dict[str, Any]:
    from publisher.api import ReleaseReport
    from publisher.manifest.json_schema import DIALECT

    return {"$schema": DIALECT, **ReleaseReport.model_json_schema(mode="serialization")}


def _policy() -> dict[str, Any]:
    from publisher.manifest.json_schema import DIALECT
    from publisher.policy.schema import Policy

    return {"$schema": DIALECT, **Policy.model_json_schema()}


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {"manifest": _manifest, "policy": _policy, "report": _report}


@click.command()
@click.argument("document", type=click.Choice(list(SCHEMAS)))
def schema(document: str) -> None:
    """Print a JSON Schema (2020-12).

    ``manifest`` includes the parameters of every plugin that is installed; ``policy`` is that of the file behind
    --policy; ``report`` is that of report.json.

    \b
    Examples:
      publisher schema manifest > manifest.schema.json
      publisher schema report
    """
    output.document(SCHEMAS[document]())
