"""The top of the model card: pictures of each concept that goes, and what it takes to get it back."""

from __future__ import annotations

from publisher.api import ReleaseReport
from publisher.package.layout import PICTURES
from publisher.package.pictures import PictureStrip
from publisher.report.access import LEGEND, NOT_ATTACKED, TITLE, AccessCell, access_table
from publisher.report.removal import HEADING, Removal
from publisher.text import markdown
from publisher.text import table as markdown_table


def pictures(strip: PictureStrip | None) -> str:
    """Return the strip with a line that says what it shows; empty without a strip."""
    if strip is None:
        return ""
    names = [markdown(concept.name) for concept in strip.concepts]
    more = f"; {strip.left_out} more concepts are in `release/reports/index.html`" if strip.left_out else ""
    return (
        f"![Images of the base model above those of the hardened model]({PICTURES})\n\n"
        f"From top to bottom: {', '.join(names)}. Of each, the base model's images stand above the hardened model's, "
        f"with the same prompts and seeds{more}."
    )


def access(report: ReleaseReport) -> str:
    """Return the table of accesses and concepts; empty for reports that do not say what was to go."""
    found = access_table(report)
    if found is None:
        return ""
    headings, rows = found.oriented()
    lines = markdown_table([markdown(heading) for heading in headings], ())
    for name, cells in rows:
        lines.append(f"| {' | '.join([markdown(name), *(_cell(cell, wide=found.wide) for cell in cells)])} |")
    words = [line for name, one in zip(found.names, found.removals, strict=True) for line in _words(name, one)]
    return "\n".join([f"## {TITLE}", "", *lines, "", markdown(LEGEND), "", f"### {HEADING}", "", *words])


def _words(name: str, removal: Removal) -> list[str]:
    return [f"- {markdown(name)}: {markdown(removal.line)}", *(f"  - {markdown(line)}" for line in removal.lines)]


def _cell(cell: AccessCell, *, wide: bool) -> str:
    if cell.verdict is None:
        return NOT_ATTACKED
    if not wide:
        return f"**{cell.verdict}** {markdown(cell.brief)}"
    return "<br>".join(f"**{one.verdict}** {markdown(one.line)}" for one in cell.attempts)
