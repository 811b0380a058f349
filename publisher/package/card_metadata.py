"""The front matter of the model card: what the hub reads of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from publisher.api import CheckRecord, ReleaseReport
from publisher.package.hub_licenses import IDS
from publisher.package.own_card import OwnCard
from publisher.package.summary import checks
from publisher.text import printable

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

_HUB = re.compile(r"hf:([\w.-]+/[\w.-]+)@[0-9a-f]{40}")


def front_matter(report: ReleaseReport, own: OwnCard | None, license_file: str) -> str:
    """Return the YAML between the two lines of dashes.

    Args:
        report: the release's. What it knows wins over what the publisher's own part says.
        own: the publisher's own part.
        license_file: file in the package with the text of the licence; empty: there is none.
    """
    data = _license(report.license, license_file)
    hub = _HUB.fullmatch(report.model.source)
    if hub:
        data |= {"base_model": hub[1], "base_model_relation": "finetune"}
    tags = ["safety-hardened", "model-publisher", *sorted({step.name for step in report.steps})]
    data |= {"library_name": "diffusers", "pipeline_tag": "text-to-image", "tags": tags}
    if report.publisher.acceptable_use:
        data["extra_gated_prompt"] = printable(report.publisher.acceptable_use)
    for key, value in (own.metadata if own else {}).items():
        data[key] = [*tags, *(tag for tag in _listed(value) if tag not in tags)] if key == "tags" else value
    if index := _model_index(report):
        data["model-index"] = index
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=False)


def _license(name: str, file: str) -> dict[str, Any]:
    """Return the licence as the hub knows it: one of its identifiers, or another with a name and the file's."""
    if name.lower() in IDS:
        return {"license": name.lower()}
    if not name:
        return {}
    word = re.sub(r"[^a-z0-9.+-]+", "-", name.lower()).strip("-.")
    return {"license": "other", "license_name": word or "other"} | ({"license_link": file} if file else {})


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _model_index(report: ReleaseReport) -> list[dict[str, Any]]:
    """Return the checks' numbers, with intervals and gates, as the hub's ``model-index`` has results."""
    from huggingface_hub.repocard_data import eval_results_to_model_index

    results = list(_results(report))
    return eval_results_to_model_index(printable(report.name), results) if results else []


def _results(report: ReleaseReport) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    for check in checks(report):
        if check.measurement is None:
            continue
        found = check.measurement.hardened
        yield EvalResult(
            task_type="text-to-image",
            dataset_type="model-publisher",
            dataset_name=printable(check.id),
            metric_type=printable(check.metric),
            metric_name=printable(f"{check.metric} under the attack {check.attack}"),
            metric_value=found.value,
            metric_args={"low": found.low, "high": found.high, "n": found.n, **_gate(check), "verdict": check.verdict},
        )


def _gate(check: CheckRecord) -> dict[str, Any]:
    return {"gate": check.gate.model_dump(exclude_none=True)} if check.gate else {}
