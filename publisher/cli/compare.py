"""``publisher compare``: several hardened models of one base side by side."""

from __future__ import annotations

import re
from pathlib import Path

import click

from publisher.cli import output
from publisher.errors import ExitCode
from publisher.program import command

_NAMED = re.compile(r"(?P<name>[^=/\\]{1,60})=(?P<path>.+)", re.DOTALL)


@click.command()
@click.argument("reports", metavar="[NAME=]REPORT...", nargs=-1, required=True)
@click.option("--format", "form", type=click.Choice(["html", "markdown", "json"]), help="In another form than lines.")
@click.option(
    "--output", "target", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.  [default: stdout]"
)
def compare(reports: tuple[str, ...], form: str | None, target: Path | None) -> int:
    """Put several hardened models of one base model side by side.

    Each REPORT is a package, a report folder, or a report.json with its evidence beside it. The others are compared
    with the first: shares image by image, where prompts, seeds and the base model's images agree, everything else by
    its intervals. What cannot be compared says why. Signatures are not checked: `publisher verify` does that.

    \b
    Examples:
      publisher compare releases/uce-1.0.0 releases/rece-1.0.0
      publisher compare UCE=releases/uce-1.0.0 ESD=releases/esd-1.0.0.report --format html --output compare.html
    """
    from publisher.comparison import compare as put_side_by_side
    from publisher.comparison import read_subject
    from publisher.comparison.forms import as_html, as_markdown, lines
    from publisher.model.files import json_bytes, write_atomic

    found = put_side_by_side([read_subject(*_named(given)) for given in reports])
    if form == "html":
        data = as_html(found)
    elif form == "markdown":
        data = as_markdown(found).encode()
    elif form == "json":
        data = json_bytes(found.as_json())
    else:
        data = ("\n".join(lines(found)) + "\n").encode()
    if target is not None:
        write_atomic(target, data)
    elif form is None:
        output.result(data.decode())
    else:
        output.file(data)
    output.note(f"Signatures were not checked. To check one: {command('verify PACKAGE --key PUBLISHER.pub')}")
    return ExitCode.OK


def _named(given: str) -> tuple[Path, str]:
    """Return the path, and the name that stands before it; empty: none does. A path may have an equals sign."""
    match = _NAMED.fullmatch(given)
    if match is None or Path(given).exists():
        return Path(given), ""
    return Path(match["path"]), match["name"]
