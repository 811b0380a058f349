"""``release/bom.cdx.json``: base model, hardened model, plugins and libraries as a CycloneDX 1.6 document."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from publisher.model.digest import sha256_json
from publisher.model.files import json_bytes

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

    from publisher.api import ReleaseReport

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "pkg:pypi/model-publisher#bom")


def render(report: ReleaseReport) -> bytes:
    """Render the document: the same report gives the same bytes, without a time."""
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output.json import JsonV1Dot6

    base, parts = _base(report, "base-model"), [*_plugins(report), *_libraries(report)]
    model = _model(report)
    serial = uuid.uuid5(_NAMESPACE, sha256_json(report.as_json()))
    bom = Bom(components=[base, *parts], metadata=BomMetaData(component=model), serial_number=serial)
    bom.register_dependency(model, [base, *parts])
    data: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    data["metadata"].pop("timestamp", None)
    return json_bytes(data)


def _model(report: ReleaseReport) -> Component:
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    digest = report.steps[-1].output if report.steps else report.model.digest
    notes = ", then ".join(f"{step.id} ({step.name} {step.version})" for step in report.steps) or "no step"
    return Component(
        name=report.name,
        version=report.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="hardened-model",
        licenses=_licenses(report.license),
        properties=_properties({"digest": digest, "family": report.model.family}),
        pedigree=Pedigree(ancestors=[_base(report, None)], notes=notes),
    )


def _base(report: ReleaseReport, ref: str | None) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    facts = {"digest": report.model.digest, "parameters": str(report.model.parameters)}
    return Component(
        name=report.model.source,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        licenses=_licenses(report.model.license),
        properties=_properties(facts),
    )


def _plugins(report: ReleaseReport) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(
            name=f"{plugin.kind}/{plugin.name}",
            version=plugin.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"plugin:{plugin.kind}:{plugin.name}",
            properties=_properties(
                {
                    "distribution": f"{plugin.origin.distribution} {plugin.origin.version}",
                    "module": plugin.origin.module,
                    "digest": plugin.origin.digest,
                }
            ),
        )
        for plugin in report.plugins
    ]


def _libraries(report: ReleaseReport) -> list[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return [
        Component(
            name=name,
            version=version,
            bom_ref=f"library:{name}",
            type=ComponentType.PLATFORM if name == "python" else ComponentType.LIBRARY,
            purl=None if name in ("python", "publisher") else PackageURL("pypi", name=name, version=version),
        )
        for name, version in sorted(report.versions.items())
    ]


def _licenses(text: str) -> list[Any]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(text)] if text else []


def _properties(facts: dict[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=f"publisher:{name}", value=value) for name, value in facts.items() if value]
