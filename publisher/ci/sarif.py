"""SARIF 2.1.0: results that code scanning shows beside the lines of a manifest. Plain dictionaries, no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from publisher import __version__
from publisher.ci.annotations import DECISION_RULE, MANIFEST_RULE, POLICY_RULE, Annotation, Rule, Site
from publisher.model.files import json_bytes
from publisher.report.wording import visible

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
INFORMATION = "pkg:pypi/model-publisher"
OTHERS = {
    MANIFEST_RULE: Rule(MANIFEST_RULE, "The manifest can be released as it is written"),
    POLICY_RULE: Rule(POLICY_RULE, "The release has what the policy asks for"),
    DECISION_RULE: Rule(DECISION_RULE, "The report's decision is what its numbers bear out"),
}
"""Rules that are no checks."""


def as_sarif(annotations: Sequence[Annotation], rules: Iterable[Rule], name: str) -> bytes:
    """Return one run as a SARIF file. Equal results give equal bytes.

    Args:
        annotations: the results, in their order.
        rules: of the checks; those of the results that are no checks' are added.
        name: of what was looked at: the release, or ``plan``. Runs of one name follow each other in code scanning.
    """
    known = {rule.id: rule for rule in rules}
    for one in annotations:
        known.setdefault(one.rule, OTHERS.get(one.rule, Rule(one.rule, one.rule)))
    numbers = {rule: number for number, rule in enumerate(known)}
    driver = {
        "name": "publisher",
        "version": __version__,
        "informationUri": INFORMATION,
        "rules": [_rule(rule) for rule in known.values()],
    }
    run = {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"publisher/{visible(name)}/"},
        "columnKind": "unicodeCodePoints",
        "results": [_result(one, numbers[one.rule]) for one in annotations],
    }
    return json_bytes({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(rule: Rule) -> dict[str, Any]:
    sentence = _sentence(rule.sentence)
    limits = [_sentence(limit) for limit in rule.help.splitlines() if limit.strip()]
    return {
        "id": visible(rule.id),
        "shortDescription": {"text": sentence},
        "fullDescription": {"text": sentence},
        "help": {"text": " ".join(limits) or sentence},
    }


def _sentence(text: str) -> str:
    shown = visible(text).strip()
    return shown if shown.endswith((".", "!", "?")) else f"{shown}."


def _result(one: Annotation, number: int) -> dict[str, Any]:
    lines = [visible(line) for line in one.message.splitlines() if line.strip()]
    text = f"WAIVED ({visible(one.waived)}): {' '.join(lines)}" if one.waived else " ".join(lines)
    result: dict[str, Any] = {
        "ruleId": visible(one.rule),
        "ruleIndex": number,
        "level": one.level,
        "message": {"text": _sentence(text)},
        "partialFingerprints": {one.fingerprint[0]: one.fingerprint[1]},
        "locations": [_location(one.site)] if one.site else [],
    }
    if one.waived:
        justification = visible(one.waived)
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": justification}]
    return result


def _location(site: Site) -> dict[str, Any]:
    from urllib.parse import quote

    place: dict[str, Any] = {"artifactLocation": {"uri": quote(site.file)}}
    if site.line is not None:
        column = {"startColumn": site.column} if site.column is not None else {}
        place["region"] = {"startLine": site.line, **column}
    return {"physicalLocation": place}
