"""What CI systems are told: places in the manifest, SARIF, annotations of a log, and outputs of a step."""

from publisher.ci.annotations import Annotation, Rule, Site, of_error, of_plan, of_policy, of_report, rules_of
from publisher.ci.github import annotate, write_outputs
from publisher.ci.sarif import as_sarif

__all__ = [
    "Annotation",
    "Rule",
    "Site",
    "annotate",
    "as_sarif",
    "of_error",
    "of_plan",
    "of_policy",
    "of_report",
    "rules_of",
    "write_outputs",
]
