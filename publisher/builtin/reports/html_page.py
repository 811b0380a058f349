"""The report as one HTML page: self-contained, for people, readable without its script."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import ReleaseReport, ReportFormat
from publisher.builtin.reports import bars, charts, figures, heat, learning_curves, outline, second
from publisher.report import access, budget, kept_gains, limits, relearning, removal, rows, verdicts
from publisher.report import wording as text
from publisher.report.wording import number

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST = 4000
"""Characters of one foreign text that the page shows."""
LONGEST_TABLE = 100
"""Rows of a table of details; more are shown as they are."""
BINDS = {
    "in-weights": "holds in the weights",
    "in-pipeline": "holds in the pipeline: anyone who drops the artifact is free of it",
    "by-convention": "binds those who honour it",
}


class HtmlPage(ReportFormat):
    """The page that a publisher shows. It loads nothing, and a content security policy keeps it so.

    Its one script searches the page. Without it everything can be read.
    """

    name: ClassVar[str] = "html"
    version: ClassVar[str] = "2"
    filename: ClassVar[str] = "index.html"
    summary: ClassVar[str] = "One self-contained page for people: decision, pictures, what it takes, checks, limits."
    quick: ClassVar[bool] = False

    def render(self, report: ReleaseReport) -> bytes:
        """Return the whole file."""
        parts = {"style": _file("style.css"), "script": _file("page.js")}
        hashes = {name: _sha256(content) for name, content in parts.items()}
        template = _environment().get_template("page.html.j2")
        return template.render(**_contents(report), **parts, hashes=hashes).encode()


def _contents(report: ReleaseReport) -> dict[str, Any]:
    """Return what the templates ask for besides the functions of the environment."""
    order = outline.outline(report)
    return {
        "report": report,
        "decision": verdicts.decision(report),
        "warnings": [*verdicts.contradictions(report), *verdicts.broken_rules(report), *verdicts.undone(report)],
        "order": order,
        "access": access.access_table(report),
        "legend": access.LEGEND,
        "columns": _columns(report),
        "cells": {(cell.claim, cell.after): cell for cell in report.matrix},
        "units": _units(report),
        "heat_parts": heat.parts(report),
        "heat_place": _heat_place(report, order),
        "limits": limits.limits(report),
        "folder": text.package_folder(report),
        **_names(report, order),
        **_plots(report),
    }


def _names(report: ReleaseReport, order: outline.Outline) -> dict[str, dict[str, Any]]:
    """Return where each check and concept stands, and what claims and checks are called by."""
    return {
        "anchors": outline.anchors(order),
        "where": {section.concept.id: section.anchor for section in order.sections if section.concept},
        "checks": {check.id: check for claim in report.claims for check in claim.checks},
        "numbers": {claim.id: number for number, claim in enumerate(report.claims, 1)},
        "sentences": {claim.id: claim.sentence for claim in report.claims},
    }


def _plots(report: ReleaseReport) -> dict[str, dict[str, Any]]:
    """Return the plots of each check by training, and how many of them would make the page too large."""
    trained = [check for _, check in relearning.trained(report)]
    galleries, missing = learning_curves.galleries(trained)
    return {
        "plots": {check.id: plots for check, plots in zip(trained, galleries, strict=True)},
        "missing_plots": {check.id: number for check, number in zip(trained, missing, strict=True)},
    }


def _file(name: str) -> str:
    return (files("publisher.builtin.reports") / "templates" / name).read_text("utf-8")


def _sha256(content: str) -> str:
    """Return the hash as a content security policy has it."""
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _heat_place(report: ReleaseReport, order: outline.Outline) -> str:
    """Return the anchor of the section with the permeabilities: of the only concept with a membrane, or of several."""
    membranes = report.permeabilities.membranes if report.permeabilities else ()
    one = [section for section in order.sections if section.concept and list(membranes) == [section.concept.id]]
    some = [*one, *order.having("several"), *order.having("all", "stays"), *order.sections[-1:]]
    return some[0].anchor if membranes and some else ""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return text.visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    environment = Environment(
        loader=PackageLoader("publisher.builtin.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"clip": clip, "compact": compact, "trusted": Markup}
    environment.globals |= {
        "text": text,
        "verdicts": verdicts,
        "bars": bars,
        "charts": charts,
        "figures": figures,
        "heat": heat,
        "binds": BINDS,
        "tabular": tabular,
        "budget": budget,
        "removal": removal,
        "rows": rows,
        "learning": learning_curves,
        "relearning": relearning,
        "number": number,
        "kept_gains": kept_gains,
        "second": second,
    }
    return environment


def clip(value: str, longest: int = LONGEST) -> str:
    """Return ``value``, or its beginning and how much is missing."""
    if len(value) <= longest:
        return value
    return f"{value[:longest]}\u2026 ({text.count(len(value) - longest, 'more character')})"


def compact(value: Any) -> str:
    """Return JSON data on one line; text without quotes."""
    return clip(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def tabular(value: Any) -> tuple[list[str], list[list[str]]] | None:
    """Return headings and cells of a list of records with the same keys and plain values; None where it is none."""
    if not isinstance(value, list) or not value or len(value) > LONGEST_TABLE:
        return None
    if not all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value) or not value[0]:
        return None
    if any(isinstance(one, dict | list) for row in value for one in row.values()):
        return None
    return list(value[0]), [[_plain(row[key]) for key in value[0]] for row in value]


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _columns(report: ReleaseReport) -> list[str]:
    """Return the moments at which claims were measured: before all, then after each step."""
    order = ["base", *(step.id for step in report.steps)]
    seen = dict.fromkeys(cell.after for cell in report.matrix)
    return [name for name in order if name in seen] + [name for name in seen if name not in order]


def _units(report: ReleaseReport) -> dict[str, str]:
    """Return the unit of each claim's checks; empty where they differ."""
    units = {claim.id: {check.unit for check in claim.checks} for claim in report.claims}
    return {claim: found.pop() if len(found) == 1 else "" for claim, found in units.items()}
