"""A comparison as lines for a terminal, as Markdown for a pull request, and as one HTML page without scripts."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from publisher.comparison.table import ComparedCheck, Difference, ModelComparison
from publisher.report.verdicts import DECISIONS, SYMBOLS
from publisher.report.wording import count, estimate, figure, looks, span, visible
from publisher.text import markdown, table

if TYPE_CHECKING:
    from jinja2 import Environment

OUTCOMES = {"better": "better", "worse": "worse", "not told apart": "not told apart", "not compared": "not compared"}
RULE = (
    "A difference is told only where its whole 95% interval lies on one side. Shares are compared image by image, the"
    " same prompt and seed in both models. Other numbers are compared by their intervals, which must not overlap."
    " Verdicts are by each model's own gates, which may differ."
)
MORE = "With many rows some differences are beyond their interval by chance alone: about one in twenty."


def number(cell: ComparedCheck) -> str:
    """Return a model's number with its interval and n: ``"1.7% (0% to 9.1%), n 60 of 7 prompts"``."""
    if cell.check is None:
        return "not tested"
    if cell.check.measurement is None:
        return f"not measured: {cell.check.reason}"
    interval = span(cell.check.measurement.hardened, cell.check.unit, cell.check.gate)
    return f"{estimate(cell.check)} ({interval}), n {looks(cell.check.measurement)}"


def against(difference: Difference) -> str:
    """Return a difference in words: ``"worse by 8.3 points (1.7 to 18), 60 pairs of images"``."""
    if difference.interval is None:
        return f"{OUTCOMES[difference.outcome]}: {difference.how}"
    size = figure(difference.interval.value, "points")
    return f"{OUTCOMES[difference.outcome]}: {size} ({span(difference.interval, 'points')}), {difference.how}"


def lines(found: ModelComparison) -> list[str]:
    """Return the comparison as plain lines, control characters written out."""
    said = [f"{count(len(found.names), 'model')} of {visible(found.base)}, compared with {visible(found.names[0])}", ""]
    width = max(len(visible(name)) for name in found.names)
    for name, decision, steps in zip(found.names, found.decisions, found.steps, strict=True):
        made = visible(", ".join(steps)) or "no step"
        said.append(f"  {visible(name):<{width}}  {DECISIONS[decision]}, made by {made}")
    for row in found.rows:
        said += ["", f"{visible(row.sentence)}", f"  {visible(row.what)}"]
        for name, cell in zip(found.names, row.cells, strict=True):
            mark = SYMBOLS[cell.verdict] if cell.verdict else " "
            said.append(f"  {mark} {visible(name):<{width}}  {visible(number(cell))}")
            if cell.difference:
                said.append(f"    {'':<{width}}  {visible(against(cell.difference))}")
    return [*said, "", RULE, *([MORE] if found.comparisons > 1 else [])]


def as_markdown(found: ModelComparison) -> str:
    """Return the comparison as Markdown: one row a check, one column a model."""
    headings = ["Claim", *(markdown(name) for name in found.names)]
    rows = [
        [
            f"{row.sentence} ({row.what})",
            *(
                " ".join(
                    [
                        *([SYMBOLS[cell.verdict]] if cell.verdict else []),
                        number(cell),
                        *([f"- {against(cell.difference)}"] if cell.difference else []),
                    ]
                )
                for cell in row.cells
            ),
        ]
        for row in found.rows
    ]
    decided = [
        f"- {markdown(name)}: {DECISIONS[decision]}, made by {markdown(', '.join(steps)) or 'no step'}"
        for name, decision, steps in zip(found.names, found.decisions, found.steps, strict=True)
    ]
    title = f"# {count(len(found.names), 'model')} of {markdown(found.base)}"
    rest = [RULE, *([MORE] if found.comparisons > 1 else [])]
    return "\n".join([title, "", *decided, "", *table(headings, rows), "", *rest]) + "\n"


def as_html(found: ModelComparison) -> bytes:
    """Return the comparison as one page that loads nothing and runs nothing."""
    style = (files("publisher.comparison") / "templates" / "comparison.css").read_text("utf-8")
    page = _environment().get_template("comparison.html.j2")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rest = [RULE, *([MORE] if found.comparisons > 1 else [])]
    return page.render(found=found, style=style, style_hash=digest, notes=rest).encode()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        return visible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value

    environment = Environment(
        loader=PackageLoader("publisher.comparison"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["trusted"] = Markup
    environment.globals |= {
        "number": number,
        "against": against,
        "decisions": DECISIONS,
        "symbols": SYMBOLS,
        "count": count,
    }
    return environment
