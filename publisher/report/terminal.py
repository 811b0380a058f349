"""The report in a terminal: the verdict and one line a check."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from publisher.api import CheckRecord, ClaimRecord, ReleaseReport, Verdict
from publisher.report import budget, verdicts
from publisher.report.wording import figure, gate_words, looks, short, span, visible

STYLES: dict[Verdict, str] = {"passed": "green", "failed": "red", "unknown": "yellow", "reported": "bright_black"}
WIDEST = 110
"""Columns; wider rows are harder to follow."""
LONGEST = 300
"""Characters of one foreign text."""


def lines(report: ReleaseReport) -> list[str]:
    """The summary as plain lines: control characters written out, nothing styled."""
    decision = verdicts.decision(report)
    found = [f"{verdicts.DECISIONS[decision]}: {_clean(f'{report.name} {report.version}')}", verdicts.sentence(report)]
    found += [f"Warning: {_clean(line)}" for line in _warnings(report)]
    for claim in report.claims:
        found += ["", f"{verdicts.word(claim).upper()}  {_clean(claim.sentence)}"]
        for check in claim.checks:
            found.append("  " + "  ".join(filter(None, _cells(check))))
            found += [f"    {note}" for note in _notes(check)]
    return [*found, "", _facts(report)]


def show(report: ReleaseReport, console: Console) -> None:
    """Print the summary in colour; the words say all that the colours say."""
    decision = verdicts.decision(report)
    title = f"{verdicts.DECISIONS[decision]}: {_clean(f'{report.name} {report.version}')}"
    console.print(_styled(title, decision), Text(verdicts.sentence(report)), sep="\n")
    for line in _warnings(report):
        console.print(Text(f"Warning: {_clean(line)}", style=STYLES["unknown"]))
    for claim in report.claims:
        console.print()
        console.print(_styled(f"{verdicts.word(claim)}: {_clean(claim.sentence)}", verdicts.claim_verdict(claim)))
        console.print(_table(claim), width=min(console.width, WIDEST))
    console.print()
    console.print(Text(_facts(report), style="dim"))


def _styled(text: str, verdict: Verdict) -> Text:
    return Text(f"{verdicts.SYMBOLS[verdict]} {text}", style=f"bold {STYLES[verdict]}")


def _table(claim: ClaimRecord) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=9, no_wrap=True)
    for ratio in (4, 5, 4):
        table.add_column(ratio=ratio, overflow="fold")
    for check in claim.checks:
        verdict, (word, name, value, control, gate) = verdicts.check_verdict(check), _cells(check)
        value = "\n".join(filter(None, (value, control, *_notes(check))))
        cells = (name, value, gate.replace(" and ", "\n"))
        table.add_row(Text(f"  {word}", style=STYLES[verdict]), *map(Text, cells))
    return table


def _cells(check: CheckRecord) -> tuple[str, str, str, str, str]:
    """Verdict, check, hardened, base, gate."""
    word, gate = verdicts.check_verdict(check), gate_words(check.gate, check.unit)
    if check.measurement is None:
        return word, _clean(verdicts.title(check)), f"not measured: {_clean(check.reason)}", "", gate
    if check.trials:
        return word, _clean(verdicts.title(check)), _clean(budget.line(check)), "", gate
    found, base = check.measurement.hardened, check.measurement.base
    value = f"{figure(found.value, check.unit, check.gate)} ({span(found, check.unit, check.gate)})"
    value += f", n {looks(check.measurement)}"
    control = f"base {figure(base.value, check.unit, check.gate)}" if base else ""
    return word, _clean(verdicts.title(check)), value, control, gate


def _notes(check: CheckRecord) -> list[str]:
    return [_clean(note) for note in check.measurement.notes] if check.measurement else []


def _warnings(report: ReleaseReport) -> list[str]:
    return [*verdicts.contradictions(report), *verdicts.undone(report)]


def _facts(report: ReleaseReport) -> str:
    model = report.model
    return (
        f"Base model {_clean(model.source)}, sha256 {short(model.digest)}; seed {report.seed}; {_clean(report.device)}"
    )


def _clean(text: str) -> str:
    text = visible(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}\u2026"
