"""``publisher compare``: several hardened models of one base side by side."""

from __future__ import annotations

import re
from pathlib import Path

import click

from publisher.cli import output
from publisher.errors import ExitCode, UsageError
from publisher.program import command

_NAMED = re.compile(r"(?P<name>[^=/\\]{1,60})=(?P<path>.+)", re.DOTALL)
ANSWERS = {"not worse": ExitCode.OK, "worse": ExitCode.REFUSED}
"""Answer about a new release -> exit code; every other one is *inconclusive*."""


@click.command()
@click.argument("reports", metavar="[NAME=]REPORT...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["html", "markdown", "json"]), help="In another form than lines.")
@click.option(
    "--output", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.  [default: stdout]"
)
@click.option(
    "--not-worse-by",
    "points",
    type=float,
    metavar="POINTS",
    help="Say whether the second report is worse than the first by more than this many percentage points.",
)
def compare(reports: tuple[str, ...], form: str | None, target: Path | None, points: float | None) -> int:
    """Put several hardened models of one base model side by side.

    Each REPORT is a package, a report folder, or a report.json with its evidence beside it. The others are compared
    with the first: shares image by image, where prompts, seeds and the base model's images agree, everything else by
    its intervals. What cannot be compared says why. Signatures are not checked: `publisher verify` does that.

    With --not-worse-by there are two, the OLD release and the NEW one, of which the base models may differ. Each check
    that counts images is answered by the interval of the difference between paired images: NEW is not worse where all
    of it lies within the margin. Checks of another unit are answered by NEW's own gates.

    \b
    Examples:
      publisher compare releases/uce-1.0.0 releases/rece-1.0.0
      publisher compare UCE=releases/uce-1.0.0 ESD=releases/esd-1.0.0.report --format html --output compare.html
      publisher compare releases/emoji-clean-1.0.0 releases/emoji-clean-1.1.0 --not-worse-by 5

    Exit codes: 0 compared, or not worse; 1 worse; 2 edit the command; 4 not decided, or not comparable: a check that is
    missing, other scorers, prompts, seeds or samplers.
    """
    from publisher.comparison import compare as put_side_by_side
    from publisher.comparison import read_subject
    from publisher.comparison.forms import as_html, as_markdown, lines
    from publisher.model.files import json_bytes

    if points is not None:
        return _answer(reports, points, form, target)
    found = put_side_by_side([read_subject(*_named(given)) for given in reports])
    if form == "html":
        data = as_html(found)
    elif form == "markdown":
        data = as_markdown(found).encode()
    elif form == "json":
        data = json_bytes(found.as_json())
    else:
        data = ("\n".join(lines(found)) + "\n").encode()
    _give(data, form, target)
    return ExitCode.OK


def _answer(reports: tuple[str, ...], points: float, form: str | None, target: Path | None) -> int:
    """Say whether a new release is worse than an old one by more than a margin."""
    from publisher.comparison import lines_of, not_worse, read_subject
    from publisher.model.files import json_bytes

    if len(reports) != 2:
        raise UsageError("--not-worse-by compares two reports", hint="Give the old release, then the new one.")
    if not 0 < points < 100:  # NaN is neither
        raise UsageError(f"--not-worse-by {points:g} is no margin", hint="Give percentage points between 0 and 100.")
    if form not in (None, "json"):
        raise UsageError(f"--not-worse-by has no form {form!r}", hint="Leave --format out, or give json.")
    old, new = (read_subject(*_named(given)) for given in reports)
    found = not_worse(old, new, points / 100)
    data = json_bytes(found.as_json()) if form else ("\n".join(lines_of(found)) + "\n").encode()
    _give(data, form, target)
    return ANSWERS.get(found.answer, ExitCode.INCONCLUSIVE)


def _give(data: bytes, form: str | None, target: Path | None) -> None:
    """Print a comparison, or write it to a file."""
    from publisher.model.files import write_atomic

    if target is not None:
        write_atomic(target, data)
    elif form is None:
        output.result(data.decode())
    else:
        output.file(data)
    output.note(f"Signatures were not checked. To check one: {command('verify PACKAGE --key PUBLISHER.pub')}")


def _named(given: str) -> tuple[Path, str]:
    """Return the path, and the name that stands before it; empty: none does. A path may have an equals sign."""
    match = _NAMED.fullmatch(given)
    if match is None or Path(given).exists():
        return Path(given), ""
    return Path(match["path"]), match["name"]
