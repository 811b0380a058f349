"""``release/bom.cdx.json``: base model, hardened model, plugins and libraries as a CycloneDX 1.6 document.

The hardened model has a model card of CycloneDX too: the checks' numbers with their intervals, claims and limits.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from publisher.model.digest import sha256_json
from publisher.model.files import json_bytes
from publisher.package.layout import CARD, DECISION, PROVENANCE, REPORTS, TESTS
from publisher.package.summary import checks

if TYPE_CHECKING:
    from cyclonedx.model import ExternalReference, HashType
    from cyclonedx.model.component import Component
    from cyclonedx.model.contact import OrganizationalEntity
    from packageurl import PackageURL

    from publisher.api import CheckRecord, ReleaseReport

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "pkg:pypi/model-publisher#bom")


def render(report: ReleaseReport, documents: Mapping[str, str] | None = None) -> bytes:
    """Render the document: the same report gives the same bytes, without a time.

    Args:
        report: the release's.
        documents: path of a file that the release is described in -> its sha256; None: none is known.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output.json import JsonV1Dot6

    base, parts = _base(report, "base-model"), [*_plugins(report), *_libraries(report)]
    model = _model(report, documents or {})
    serial = uuid.uuid5(_NAMESPACE, sha256_json(report.as_json()))
    metadata = BomMetaData(component=model, supplier=_supplier(report))
    metadata.tools.components.add(_tool(report))
    bom = Bom(components=[base, *parts], metadata=metadata, serial_number=serial)
    bom.register_dependency(model, [base, *parts])
    data: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    data["metadata"].pop("timestamp", None)
    data["metadata"]["component"]["modelCard"] = _model_card(report)  # the library has no model cards
    return json_bytes(data)


def _model(report: ReleaseReport, documents: Mapping[str, str]) -> Component:
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    digest = report.steps[-1].output if report.steps else report.model.digest
    notes = ", then ".join(f"{step.id} ({step.name} {step.version})" for step in report.steps) or "no step"
    facts = {"digest": digest, "family": report.model.family, "acceptable-use": report.publisher.acceptable_use}
    return Component(
        name=report.name,
        version=report.version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="hardened-model",
        supplier=_supplier(report),
        licenses=_licenses(report.license),
        properties=_properties(facts),
        pedigree=Pedigree(ancestors=[_base(report, None)], notes=notes),
        external_references=_references(report, documents),
        components=_weights(report),
    )


def _weights(report: ReleaseReport) -> list[Component]:
    """Return each file of weights with its hash, as ``SHA256SUMS`` lists it."""
    from cyclonedx.model.component import Component, ComponentType

    return [
        Component(name=path, type=ComponentType.FILE, bom_ref=f"file:{path}", hashes=[_sha256(digest)])
        for path, digest in sorted(report.files.items())
        if path.endswith(".safetensors")
    ]


def _references(report: ReleaseReport, documents: Mapping[str, str]) -> Iterator[ExternalReference]:
    """Yield where in the package its card, evidence and attestations are; attestations are made afterwards."""
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri

    evidence = {REPORTS + check.evidence: check.evidence_sha256 for check in checks(report) if check.evidence}
    attestations = [PROVENANCE, TESTS, *([DECISION] if report.decision == "passed" else [])]
    kinds: list[tuple[ExternalReferenceType, Mapping[str, str]]] = [
        (ExternalReferenceType.MODEL_CARD, {CARD: ""}),
        (ExternalReferenceType.EVIDENCE, {**documents, **evidence}),
        (ExternalReferenceType.ATTESTATION, dict.fromkeys(attestations, "")),
    ]
    for kind, files in kinds:
        for path, digest in sorted(files.items()):
            yield ExternalReference(type=kind, url=XsUri(path), hashes=[_sha256(digest)] if digest else [])


def _base(report: ReleaseReport, ref: str | None) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    facts = {"digest": report.model.digest, "parameters": str(report.model.parameters)}
    return Component(
        name=report.model.source,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=ref,
        licenses=_licenses(report.model.license),
        purl=_hub_purl(report.model.source),
        properties=_properties(facts),
    )


def _hub_purl(source: str) -> PackageURL | None:
    """Return the package URL of a base model of the hub, which is pinned to a commit."""
    from packageurl import PackageURL

    name, at, commit = source.removeprefix("hf:").partition("@")
    organisation, slash, model = name.partition("/")
    if not (source.startswith("hf:") and at and slash):
        return None
    return PackageURL("huggingface", namespace=organisation, name=model, version=commit)


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


def _tool(report: ReleaseReport) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    version = report.versions.get("publisher")
    return Component(name="model-publisher", version=version, type=ComponentType.APPLICATION, bom_ref="tool")


def _supplier(report: ReleaseReport) -> OrganizationalEntity | None:
    from cyclonedx.model.contact import OrganizationalContact, OrganizationalEntity

    about = report.publisher
    if not about.provider:
        return None
    return OrganizationalEntity(
        name=about.provider, contacts=[OrganizationalContact(name=about.contact)] if about.contact else []
    )


def _licenses(text: str) -> list[Any]:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [LicenseFactory().make_from_string(text)] if text else []


def _properties(facts: dict[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [Property(name=f"publisher:{name}", value=value) for name, value in facts.items() if value]


def _sha256(digest: str) -> HashType:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _model_card(report: ReleaseReport) -> dict[str, Any]:
    """Return the model card of CycloneDX: what it is, what was measured, what is claimed and what is not known."""
    limits = _once([*report.limits, *(limit for claim in report.claims for limit in claim.limits)])
    metrics = [metric for check in checks(report) if (metric := _metric(check))]
    claims = [
        {"name": claim.sentence, "mitigationStrategy": f"{', '.join(claim.steps)} ({claim.binds}): {claim.verdict}"}
        for claim in report.claims
    ]
    parameters = {
        "task": "text-to-image",
        "modelArchitecture": report.model.family,
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "image"}],
    }
    return {
        "modelParameters": parameters,
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"technicalLimitations": limits, "ethicalConsiderations": claims},
    }


def _metric(check: CheckRecord) -> dict[str, Any] | None:
    """Return a check's number with its interval; None: nothing was measured."""
    if check.measurement is None:
        return None
    found = check.measurement.hardened
    return {
        "type": check.metric,
        "value": str(found.value),
        "slice": f"{check.id}; n={found.n}; {found.method}; {check.verdict}",
        "confidenceInterval": {"lowerBound": str(found.low), "upperBound": str(found.high)},
    }


def _once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
