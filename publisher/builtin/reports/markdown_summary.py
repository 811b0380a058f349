"""The report as a page of Markdown, for ``$GITHUB_STEP_SUMMARY`` and release notes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from publisher.api import ReleaseReport, ReportFormat, Verdict
from publisher.builtin.reports import second
from publisher.report import budget, verdicts
from publisher.report.access import LEGEND, NOT_ATTACKED, TITLE, AccessCell, access_table
from publisher.report.limits import limits, whose
from publisher.report.relearning import trained
from publisher.report.removal import HEADING
from publisher.report.rows import columns, row, rows
from publisher.report.wording import short, visible

ICONS: dict[Verdict, str] = {"passed": "\u2705", "failed": "\u274c", "unknown": "\u26a0\ufe0f", "reported": "\u26aa"}
LONGEST = 400
"""Characters of one foreign text: CI systems refuse a summary that is too long."""


MOST_CONCEPTS = 20
"""Of one check by training."""
MOST_LIMITS = 30
MOST_REMOVALS = 60
"""Concepts that are said to be removed or hidden."""


class MarkdownSummary(ReportFormat):
    """Verdict, one row a check, limits. Foreign text is escaped: it can format, link and embed nothing."""

    name: ClassVar[str] = "markdown"
    version: ClassVar[str] = "1"
    filename: ClassVar[str] = "summary.md"
    summary: ClassVar[str] = "One page for $GITHUB_STEP_SUMMARY and release notes."

    def render(self, report: ReleaseReport) -> bytes:
        """Return the whole file."""
        decision = verdicts.decision(report)
        title = f"## {ICONS[decision]} {verdicts.decision_word(report)}: {escape(report.name)} {escape(report.version)}"
        blocks = [title, escape(verdicts.sentence(report)), *_warnings(report), *_access(report), _checks(report)]
        blocks += _training(report)
        blocks += [escape(sentence) for sentence in second.sentences(report)]
        blocks += _limits(report)
        blocks.append(_facts(report))
        return ("\n\n".join(blocks) + "\n").encode()


def escape(text: str) -> str:
    """Return ``text`` as Markdown that shows exactly it."""
    text = visible(text)
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}\u2026"
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_{}\[\]#|!~$])", r"\\\1", text)
    return re.sub(r"(?i)(:)(?=//)|(?<=www)(\.)|(?<=\S)(@)(?=\S)", r"<!-- -->\g<0>", text)


def _warnings(report: ReleaseReport) -> list[str]:
    lines = [*verdicts.contradictions(report), *verdicts.broken_rules(report), *verdicts.undone(report)]
    return ["\n".join(f"> **Warning:** {escape(line)}  " for line in lines)] if lines else []


def _access(report: ReleaseReport) -> list[str]:
    """Return what it takes to get each concept back; nothing for reports that do not say what was to go."""
    found = access_table(report)
    if found is None:
        return []
    headings, rows = found.oriented()
    lines = [_line([escape(heading) for heading in headings]), "|---" * len(headings) + "|"]
    lines += [_line([escape(name), *(_cell(cell, wide=found.wide) for cell in cells)]) for name, cells in rows]
    words = []
    for name, one in list(zip(found.names, found.removals, strict=True))[:MOST_REMOVALS]:
        words += [f"- {escape(name)}: {escape(one.line)}", *(f"  - {escape(line)}" for line in one.lines)]
    left_out = len(found.removals) - MOST_REMOVALS
    words += [f"- {left_out} more are in the report."] if left_out > 0 else []
    return [f"### {TITLE}", "\n".join(lines), escape(LEGEND), f"#### {HEADING}", "\n".join(words)]


def _cell(cell: AccessCell, *, wide: bool) -> str:
    if cell.verdict is None:
        return NOT_ATTACKED
    if not wide:
        return f"{ICONS[cell.verdict]} {cell.verdict} {escape(cell.brief)}"
    return "<br>".join(f"{ICONS[one.verdict]} {one.verdict} {escape(one.line)}" for one in cell.attempts)


def _checks(report: ReleaseReport) -> str:
    others = [column.heading for column in columns(brief=False)[2:]]
    lines = [_line(["", "Claim and check", *others]), "|---" * (2 + len(others)) + "|"]
    for claim in report.claims:
        verdict = f"{ICONS[verdicts.claim_verdict(claim)]} {verdicts.word(claim)}"
        sentence = f"**{escape(claim.sentence)}**{escape(verdicts.several(claim))}"
        lines.append(_line([verdict, sentence, *("" for _ in others)]))
        for one in rows(claim.checks):
            word, *cells = (escape(cell) for cell in one.cells.values())
            lines.append(_line([f"{ICONS[one.verdict]} {word}", *cells]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _training(report: ReleaseReport) -> list[str]:
    """Return what checks by training found, and the steps behind it; nothing where there are none."""
    lines = []
    for _, check in trained(report):
        lines.append(f"- {escape(verdicts.title(check))}: {escape(row(check).line('gate'))}")
        lines += [f"  - steps to one half, {escape(words)}" for words in budget.steps(check)[:MOST_CONCEPTS]]
    return ["### Re-learning", "\n".join(lines)] if lines else []


def _limits(report: ReleaseReport) -> list[str]:
    found = limits(report)
    lines = [
        f"- {escape(limit)}{f' ({escape(whose(report, claims))})' if claims else ''}"
        for limit, claims in found[:MOST_LIMITS]
    ]
    lines += [f"- {len(found) - MOST_LIMITS} more are in the report."] if len(found) > MOST_LIMITS else []
    return ["### What this does not prove", "\n".join(lines)] if lines else []


def _facts(report: ReleaseReport) -> str:
    model = report.model
    text = (
        f"Base model {escape(model.source)}, sha256 {escape(short(model.digest))}; manifest sha256"
        f" {escape(short(report.manifest_sha256))}; seed {report.seed}; {escape(report.device)}."
    )
    return f"{text} This summary is not signed: check the package with `publisher verify`."
