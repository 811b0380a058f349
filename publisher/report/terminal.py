"""The report in a terminal: the verdict, what it takes to get each concept back, and one line a check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from publisher.api import ClaimRecord, ReleaseReport, Verdict
from publisher.report import verdicts
from publisher.report.access import LEGEND, NOT_ATTACKED, TITLE, AccessCell, AccessTable, access_table
from publisher.report.removal import HEADING, SHARES
from publisher.report.rows import rows
from publisher.report.wording import count, short, visible

STYLES: dict[Verdict, str] = {"passed": "green", "failed": "red", "unknown": "yellow", "reported": "bright_black"}
WIDEST = 110
"""Columns; wider rows are harder to follow."""
NEED, CELL, NAME = 15, 18, 22
"""Columns of the first column of the table of accesses, of a concept's column, and of a concept's name."""
NAMED = 5
"""Concepts that a line lists; of more it says how many."""
WIDEST_TABLE = 100
"""Columns from which on the table has a row for each concept, where those do not fit as columns."""
LONGEST, LONGEST_NAME = 300, 60
"""Characters of one foreign text, and of a concept's name."""
NOTHING = "\u2013"
"""Cell of what was not attacked, where columns are narrow."""


def lines(report: ReleaseReport, seconds: Mapping[str, float] | None = None) -> list[str]:
    """Return the summary as plain lines: control characters written out, nothing styled.

    Args:
        report: of a release.
        seconds: check of an attack by training -> seconds of one training step, where they are known.
    """
    found = [
        f"{verdicts.decision_word(report)}: {_clean(f'{report.name} {report.version}')}",
        verdicts.sentence(report),
    ]
    found += [f"Warning: {_clean(line)}" for line in _warnings(report)]
    table = access_table(report, seconds)
    found += ["", *_access_lines(table)] if table else []
    for claim in report.claims:
        found += ["", f"{verdicts.word(claim).upper()}  {_sentence(claim)}"]
        for row in rows(claim.checks):
            found.append(f"  {row.verdict}  {_clean(row.cells['check'])}  {row.line(clean=_clean)}")
            found += [f"    {_clean(remark)}" for remark in row.remarks]
    return [*found, "", _facts(report)]


def show(report: ReleaseReport, console: Console, seconds: Mapping[str, float] | None = None) -> None:
    """Print the summary in colour; the words say all that the colours say. ``seconds`` as for :func:`lines`."""
    decision = verdicts.decision(report)
    title = f"{verdicts.decision_word(report)}: {_clean(f'{report.name} {report.version}')}"
    console.print(_styled(title, decision), Text(verdicts.sentence(report)), sep="\n")
    for line in _warnings(report):
        console.print(Text(f"Warning: {_clean(line)}", style=STYLES["unknown"]))
    table = access_table(report, seconds)
    if table:
        _show_access(table, console)
    for claim in report.claims:
        console.print()
        console.print(_styled(f"{verdicts.word(claim)}: {_sentence(claim)}", verdicts.claim_verdict(claim)))
        console.print(_table(claim), width=min(console.width, WIDEST))
    console.print()
    console.print(Text(_facts(report), style="dim"))


def _access_lines(table: AccessTable) -> Iterator[str]:
    """Yield a line for each access, and one for each number below it."""
    yield TITLE
    for row in table.rows:
        found = list(zip(table.names, row.cells, strict=True))
        untried = [name for name, cell in found if not cell.attempts]
        every = f": {NOT_ATTACKED}" if len(untried) == len(found) else ""
        yield f"  {row.title} ({row.need}){every}"
        for name, cell in found:
            yield from (f"    {_clean(name, LONGEST_NAME)}: {_clean(line)}" for line in cell.lines if cell.attempts)
        if untried and not every:
            yield f"    {NOT_ATTACKED}: {_some(untried)}"
    yield f"  {HEADING}"
    yield from (
        f"    {_clean(name, LONGEST_NAME)}: {_clean(one.line)}"
        for name, one in zip(table.names, table.removals, strict=True)
    )
    yield from _share_lines(table)
    yield f"  {LEGEND}"


def _share_lines(table: AccessTable) -> Iterator[str]:
    """Yield how much each attack says is removed, where one says it."""
    found = [(name, line) for name, one in zip(table.names, table.removals, strict=True) for line in one.lines]
    if found:
        yield f"  {SHARES}"
    yield from (f"    {_clean(name, LONGEST_NAME)}: {_clean(line)}" for name, line in found)


def _some(names: list[str]) -> str:
    return (
        ", ".join(_clean(name, LONGEST_NAME) for name in names) if len(names) <= NAMED else count(len(names), "concept")
    )


def _show_access(table: AccessTable, console: Console) -> None:
    """Print the table with a column for each concept where they fit, else a row for each, else as lines."""
    width = min(console.width, WIDEST)
    console.print()
    if len(table.concepts) <= (width - NEED) // CELL:
        console.print(Text(TITLE, style="bold"))
        console.print(_by_access(table), width=width)
    elif width >= WIDEST_TABLE:
        console.print(Text(TITLE, style="bold"))
        console.print(_by_concept(table), width=width)
        console.print(Text(f"{NOTHING} {NOT_ATTACKED}", style="dim"))
    else:
        for line in _access_lines(table):
            console.print(Text(line))
        return
    for line in _share_lines(table):
        console.print(Text(line))
    console.print(Text(LEGEND, style="dim"), width=width)


def _by_access(table: AccessTable) -> Table:
    grid = _grid(NEED, ["With", *table.names])
    for row in table.rows:
        cells = [Text("\n").join(_attempts(cell)) for cell in row.cells]
        grid.add_row(Text(row.title), *cells)
    grid.add_row(Text(HEADING), *(Text(_clean(one.line)) for one in table.removals))
    return grid


def _by_concept(table: AccessTable) -> Table:
    grid = _grid(NAME, ["Concept", *(row.title for row in table.rows), HEADING])
    for name, one, *cells in zip(table.names, table.removals, *(row.cells for row in table.rows), strict=True):
        grid.add_row(Text(_clean(name, LONGEST_NAME)), *map(_headline, cells), Text(one.word))
    return grid


def _grid(first: int, headings: Iterable[str]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for number, heading in enumerate(headings):
        text = Text(_clean(heading, LONGEST_NAME), style="bold")
        grid.add_column(text, width=first if number == 0 else None, ratio=None if number == 0 else 1, overflow="fold")
    grid.show_header = True
    return grid


def _attempts(cell: AccessCell) -> Iterator[Text]:
    if not cell.attempts:
        yield Text(NOT_ATTACKED, style="dim")
    for one in cell.attempts:
        head = Text(f"{verdicts.SYMBOLS[one.verdict]} {one.verdict} ", style=STYLES[one.verdict])
        yield head + Text(_clean(one.line), style="default")


def _headline(cell: AccessCell) -> Text:
    if cell.verdict is None:
        return Text(NOTHING, style="dim")
    return Text(f"{verdicts.SYMBOLS[cell.verdict]} {cell.verdict} {_clean(cell.brief)}", style=STYLES[cell.verdict])


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
    return [*verdicts.contradictions(report), *verdicts.broken_rules(report), *verdicts.undone(report)]


def _facts(report: ReleaseReport) -> str:
    model = report.model
    return (
        f"Base model {_clean(model.source)}, sha256 {short(model.digest)}; seed {report.seed}; {_clean(report.device)}"
    )


def _clean(text: str, longest: int = LONGEST) -> str:
    text = visible(text)
    return text if len(text) <= longest else f"{text[:longest]}\u2026"
