"""The rows of a report: the only place that composes the cells of a check. Every form of the report loops over them.

A new column is one entry of :data:`COLUMNS`, and its text in the test of the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from publisher.api import CheckRecord, ClaimRecord, Verdict
from publisher.report import verdicts
from publisher.report.relearning import control, repetitions
from publisher.report.wording import count, estimate, figure, gate_words, known_errors, looks, span
from publisher.text import table as markdown_table


@dataclass(frozen=True)
class Column:
    """One thing that a report says of every check."""

    name: str
    """Key of the cell."""
    heading: str
    text: Callable[[CheckRecord], str]
    """The cell of a check, in plain text of which parts are foreign; empty where there is nothing to say."""
    running: str = ", {}"
    """Template of the cell in running text, with what stands between it and the cell before."""
    brief: bool = True
    """Whether narrow forms show it too."""


@dataclass(frozen=True)
class CheckRow:
    """One check in words."""

    record: CheckRecord
    verdict: Verdict
    """The recorded verdict, or a lesser one where the numbers demand it."""
    cells: Mapping[str, str]
    """Text of each column by its name, in the order of the columns."""

    def line(self, *without: str, brief: bool = True, clean: Callable[[str], str] = str) -> str:
        """Return the cells as running text: ``"concept-rate 1.4% (0.4% to 6%), n 60 of 6 prompts"``.

        Args:
            without: names of columns that stand elsewhere; verdict and check always do.
            brief: leave out what narrow forms do not show.
            clean: makes foreign text harmless in the form.
        """
        shown = (
            column.running.format(clean(self.cells[column.name]))
            for column in columns(brief=brief)
            if column.name not in {"verdict", "check", *without} and self.cells[column.name]
        )
        return re.sub(r"^[ ,;]+", "", "".join(shown))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences that belong beside the number: why a check did not pass, then the notes of its metric."""
        why = () if self.verdict in ("passed", "reported") else (self.cells["reason"],)
        return (*why, *_said(self.record))


def brief(claim: ClaimRecord) -> str:
    """Return the figure of a claim's only check with interval and control, or how many checks the claim has."""
    if len(claim.checks) != 1:
        return count(len(claim.checks), "check")
    return row(claim.checks[0]).line("metric", "n", "gate")


def reasons(claim: ClaimRecord) -> list[str]:
    """Return why a claim did not pass: one sentence for each check that did not."""
    if not claim.checks:
        return ["No check tests it."]
    found = [one for one in rows(claim.checks) if one.verdict not in ("passed", "reported")]
    return [f"{one.record.id}: {one.line('metric', 'n', 'method', 'control', 'notes', brief=False)}" for one in found]


def check_table(checks: Iterable[CheckRecord], shown: Sequence[Column]) -> list[str]:
    """Return the lines of a Markdown table of checks with these columns."""
    cells = ([row.cells[column.name] for column in shown] for row in rows(checks))
    return markdown_table([column.heading for column in shown], cells)


def rows(checks: Iterable[CheckRecord]) -> list[CheckRow]:
    """Return each check as a row."""
    return [row(check) for check in checks]


def row(check: CheckRecord) -> CheckRow:
    """Return a check as a row."""
    return CheckRow(check, verdicts.check_verdict(check), {column.name: column.text(check) for column in COLUMNS})


def columns(*, brief: bool = False) -> tuple[Column, ...]:
    """Return the columns that a form shows.

    Args:
        brief: those of narrow forms alone.
    """
    return tuple(column for column in COLUMNS if column.brief or not brief)


def _metric(check: CheckRecord) -> str:
    """Return the metric's name; of one that reads features with the scorer that has them."""
    name = check.measurement.details.get("name") if check.measurement else None
    return name if isinstance(name, str) else check.metric


def _interval(check: CheckRecord) -> str:
    return span(check.measurement.hardened, check.unit, check.gate) if check.measurement else ""


def _n(check: CheckRecord) -> str:
    if check.measurement is None:
        return "0"
    n, trials = looks(check.measurement), repetitions(check)
    if not check.trials:
        return n
    return trials if trials == count(check.measurement.hardened.n, "trial") else f"{n} ({trials})"


def _control(check: CheckRecord) -> str:
    """Return the control with its number; of a ratio to the control the name alone."""
    if check.measurement is None:
        return ""
    base = check.measurement.base
    if base:
        return f"{control(check)} {figure(base.value, check.unit, check.gate)}"
    return control(check) if check.trials and "against" in check.measurement.details else ""


def _seen(check: CheckRecord) -> str:
    """Return what the scorer saw before the number was corrected for its errors."""
    seen = check.measurement.seen if check.measurement else None
    if seen is None:
        return ""
    return f"{figure(seen.value, check.unit, check.gate)} ({span(seen, check.unit, check.gate)})"


def _errors(check: CheckRecord) -> str:
    return known_errors(check.measurement) if check.measurement and check.measurement.seen else ""


def _gate(check: CheckRecord) -> str:
    return gate_words(check.gate, check.unit)


def _method(check: CheckRecord) -> str:
    return check.measurement.hardened.method if check.measurement else ""


def _notes(check: CheckRecord) -> str:
    return "; ".join(_said(check))


def _said(check: CheckRecord) -> tuple[str, ...]:
    """Return what must be known beside a number: a waiver of the policy, then the notes of the metric."""
    waived = (check.waiver.sentence(),) if check.waiver else ()
    return (*waived, *(check.measurement.notes if check.measurement else ()), *_controls(check))


def _controls(check: CheckRecord) -> tuple[str, ...]:
    """Return what other models show that an attack on weights has altered too, and what is left of the rest."""
    said = [
        f"{CONTROLS[name]} {figure(one.value, check.unit)} ({span(one, check.unit)}), n {one.n}"
        for name, one in check.controls.items()
        if name in CONTROLS
    ]
    before, kept = check.controls.get("kept before"), check.controls.get("kept")
    if before and kept:
        was, left = figure(before.value, "share"), figure(kept.value, "share")
        said.append(f"what stays: {left} after the attack, {was} before, n {kept.n}")
    return tuple(said)


CONTROLS = {"base": "the base model, altered in the same way:", "retrained": "the retrained reference, altered too:"}
"""Control of an attack on weights -> how a report calls it."""
COLUMNS = (
    Column("verdict", "Verdict", verdicts.check_verdict),
    Column("check", "Check", verdicts.title),
    Column("metric", "Metric", _metric),
    Column("hardened", "Hardened", estimate, " {}"),
    Column("interval", "Interval", _interval, " ({})"),
    Column("n", "n", _n, ", n {}"),
    Column("method", "Method", _method, brief=False),
    Column("control", "Control", _control, ", against {}"),
    Column("seen", "Seen by the scorer", _seen, ", seen {}", brief=False),
    Column("errors", "Scorer's errors", _errors, ", {}", brief=False),
    Column("gate", "Gate", _gate, "; {}"),
    Column("reason", "Reason", verdicts.reason, "; {}", brief=False),
    Column("notes", "Notes", _notes, "; {}", brief=False),
)
