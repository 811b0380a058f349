"""The model card's section about training: how many steps it takes to bring a concept back."""

from __future__ import annotations

from publisher.api import CheckRecord, ReleaseReport
from publisher.report import rows
from publisher.report.budget import budget
from publisher.report.relearning import trained
from publisher.report.verdicts import title
from publisher.text import markdown, table

_TEXT = """Copies of this model and of the controls were trained alike on a few images of the concept. The table has the
training steps until the concept is generated half as often as the base model generates it when asked plainly, by the
mean of the trials; ">160" means not within 160 steps. The curves are in `release/reports/index.html`.

This delays, it does not prevent: anyone who trains longer than the table says, trains in another way than was tried,
or puts weights of the public base model back gets around it."""


def relearning(report: ReleaseReport) -> str:
    """Return steps of the hardened model and the controls, and who gets around it; empty without trials."""
    checks = [check for _, check in trained(report)]
    if not checks:
        return ""
    found = budget(checks)
    heads = ["concept", "attack", "captions", "images", "trials", *map(markdown, found.models)]
    cells = [
        [row.concept, row.attack, row.captions, row.images, str(row.trials), *(half for half, _ in row.cells)]
        for row in found.rows
    ]
    lines = ["## Can training bring it back?", "", _TEXT, "", *table(heads, cells), "", *map(_found, checks)]
    return "\n".join(lines)


def _found(check: CheckRecord) -> str:
    return f"- {markdown(title(check))} ({check.verdict}): {markdown(rows.row(check).line('gate'))}"
