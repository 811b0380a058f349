"""The report as one HTML page: self-contained, without scripts, for people."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import ReleaseReport, ReportFormat
from publisher.builtin.reports import bars, charts, heat, learning_curves, pictures
from publisher.report import budget, kept_gains, relearning, rows, verdicts
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
    """The page that a publisher shows. It loads nothing, runs nothing, and a content security policy keeps it so."""

    name: ClassVar[str] = "html"
    version: ClassVar[str] = "1"
    filename: ClassVar[str] = "index.html"
    summary: ClassVar[str] = "One self-contained page for people: verdict, claims, images, provenance, limits."

    def render(self, report: ReleaseReport) -> bytes:
        """Return the whole file."""
        environment = _environment()
        style = (files("publisher.builtin.reports") / "templates" / "style.css").read_text("utf-8")
        page = environment.get_template("page.html.j2").render(
            report=report,
            decision=verdicts.decision(report),
            warnings=[*verdicts.contradictions(report), *verdicts.undone(report)],
            repeated=_repeated(report),
            columns=_columns(report),
            cells={(cell.claim, cell.after): cell for cell in report.matrix},
            units=_units(report),
            groups=pictures.groups(report),
            triples=any(pair.without_png for pair in report.pairs),
            trained=relearning.trained(report),
            heat_parts=heat.parts(report),
            style=style,
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        )
        return page.encode()


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
        "heat": heat,
        "binds": BINDS,
        "tabular": tabular,
        "budget": budget,
        "rows": rows,
        "learning": learning_curves,
        "relearning": relearning,
        "number": number,
        "kept_gains": kept_gains,
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


def _repeated(report: ReleaseReport) -> list[bool]:
    """Return for each claim whether an earlier one has the same limits: the page folds them then."""
    limits = [claim.limits for claim in report.claims]
    return [these in limits[:number] for number, these in enumerate(limits)]


def _columns(report: ReleaseReport) -> list[str]:
    """Return the moments at which claims were measured: before all, then after each step."""
    order = ["base", *(step.id for step in report.steps)]
    seen = dict.fromkeys(cell.after for cell in report.matrix)
    return [name for name in order if name in seen] + [name for name in seen if name not in order]


def _units(report: ReleaseReport) -> dict[str, str]:
    """Return the unit of each claim's checks; empty where they differ."""
    units = {claim.id: {check.unit for check in claim.checks} for claim in report.claims}
    return {claim: found.pop() if len(found) == 1 else "" for claim, found in units.items()}
