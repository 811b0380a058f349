"""The table of permeabilities as a picture: how far each prompt opens each membrane, in numbers and in colour."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from publisher.api import PermeabilityRow, PermeabilityTable, ReleaseReport

LEVELS = 10
"""Shades above none; a permeability of 1 or more has the last one."""
MOST = 400
"""Rows that the page shows."""


@dataclass(frozen=True)
class Cell:
    """One number with its shade."""

    text: str
    level: int
    """Shade from 0 to :data:`LEVELS`; 0 is shut."""


@dataclass(frozen=True)
class PromptRow:
    """Row of the table: one prompt."""

    prompt: str
    concept: str
    cells: tuple[Cell, ...]
    """Cell of each membrane, and of their sum where there are several."""


@dataclass(frozen=True)
class Part:
    """Rows of what is to go, or of what is kept."""

    title: str
    rows: tuple[PromptRow, ...]


def parts(report: ReleaseReport) -> list[Part]:
    """Return the rows by what should happen to them; nothing where no membrane opens by the prompt."""
    table = report.permeabilities
    if table is None:
        return []
    titles = {False: "To go: the membrane should be open", True: "Kept: all membranes should be shut"}
    return [
        Part(titles[kept], tuple(_row(row, table) for row in rows))
        for kept, rows in groupby(table.rows[:MOST], key=lambda row: row.kept)
    ]


def columns(table: PermeabilityTable) -> list[str]:
    """Return the headings of the numbers."""
    return [*table.membranes, "sum"] if len(table.membranes) > 1 else list(table.membranes)


def cell(value: float) -> Cell:
    """Return a number as text with its shade. Exactly 0 is ``0``; nothing else looks like it."""
    if value == 0:
        return Cell("0", 0)
    level = LEVELS if value >= 1 else max(1, round(LEVELS * value))
    text = "<0.01" if 0 < value < 0.005 else f"{value:.2f}" if abs(value) < 1000 else f"{value:.3g}"
    return Cell(text, level)


def _row(row: PermeabilityRow, table: PermeabilityTable) -> PromptRow:
    values = row.permeability[: len(table.membranes)]
    cells = [cell(value) for value in values] + [Cell("", 0)] * (len(table.membranes) - len(values))
    if len(table.membranes) > 1:
        cells.append(cell(sum(values)))
    return PromptRow(row.prompt, row.concept, tuple(cells))
