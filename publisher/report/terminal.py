"""The report in a terminal: the verdict and one line a check."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from publisher.api import ClaimRecord, ReleaseReport, Verdict
from publisher.report import verdicts
from publisher.report.rows import rows
from publisher.report.wording import short, visible

STYLES: dict[Verdict, str] = {"passed": "green", "failed": "red", "unknown": "yellow", "reported": "bright_black"}
WIDEST = 110
"""Columns; wider rows are harder to follow."""
LONGEST = 300
"""Characters of one foreign text."""


def lines(report: ReleaseReport) -> list[str]:
    """Return the summary as plain lines: control characters written out, nothing styled."""
    decision = verdicts.decision(report)
    found = [f"{verdicts.DECISIONS[decision]}: {_clean(f'{report.name} {report.version}')}", verdicts.sentence(report)]
    found += [f"Warning: {_clean(line)}" for line in _warnings(report)]
    for claim in report.claims:
        found += ["", f"{verdicts.word(claim).upper()}  {_sentence(claim)}"]
        for row in rows(claim.checks):
            found.append(f"  {row.verdict}  {_clean(row.cells['check'])}  {row.line(clean=_clean)}")
            found += [f"    {_clean(remark)}" for remark in row.remarks]
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
        console.print(_styled(f"{verdicts.word(claim)}: {_sentence(claim)}", verdicts.claim_verdict(claim)))
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
    for row in rows(claim.checks):
        found = "\n".join([row.line("gate", clean=_clean), *map(_clean, row.remarks)])
        gate = row.cells["gate"].replace(" and ", "\n")
        word = Text(f"  {row.verdict}", style=STYLES[row.verdict])
        table.add_row(word, Text(_clean(row.cells["check"])), Text(found), Text(gate))
    return table


def _sentence(claim: ClaimRecord) -> str:
    return f"{_clean(claim.sentence)}{_clean(verdicts.several(claim))}"


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
