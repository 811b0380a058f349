"""``publisher report``: show, convert or open the report of a release."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from tempfile import mkdtemp

import click

from publisher.cli.output import file as print_file
from publisher.cli.output import note, result, result_is_seen, results_stream
from publisher.errors import PrerequisiteError, UsageError
from publisher.program import command

CHECK = "verify PACKAGE --key PUBLISHER.pub"


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--format", "form", metavar="NAME", help="html, json, junit, markdown, or what a plugin adds.")
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.  [default: stdout]"
)
@click.option("--open", "browse", is_flag=True, help="Open the page in a browser.")
def report(package: Path, form: str | None, output: Path | None, *, browse: bool) -> None:
    """Show, convert or open the report of a release.

    PACKAGE is a package, a report folder, or a report.json. Without --format: verdict, claims and checks in brief.

    Every form is rendered anew from report.json; nothing of the package is run or opened. The signature is not
    checked: `publisher verify` does that. The exit code says whether the report could be shown, not what it says.

    \b
    Examples:
      publisher report releases/emoji-clean-1.0.0
      publisher report releases/emoji-clean-1.0.0 --open
      publisher report releases/emoji-clean-1.0.0 --format markdown >> "$GITHUB_STEP_SUMMARY"
    """
    if browse and form not in (None, "html"):
        raise UsageError(f"--open shows the HTML page, not {form!r}", hint="Leave out --format, or --open.")
    if not browse and output and form is None:
        raise UsageError("--output needs --format", hint="For a page: --format html --output report.html")
    if browse:
        _browse(package, output)
    elif form is None:
        _summary(package)
    else:
        _convert(package, form, output)
    note(f"The signature was not checked. To check it: {command(CHECK)}")


def _summary(package: Path) -> None:
    from rich.console import Console

    from publisher.report import load
    from publisher.report.reader import seconds_of_steps
    from publisher.report.terminal import lines, show

    record, seconds = load(package), seconds_of_steps(package)
    if result_is_seen():
        show(record, Console(file=results_stream(), highlight=False), seconds)
    else:
        result("\n".join(lines(record, seconds)))


def _convert(package: Path, form: str, output: Path | None) -> None:
    data = _render(package, form)
    if output is None:
        print_file(data)
    else:
        _write(output, data)


def _browse(package: Path, output: Path | None) -> None:
    data = _render(package, "html")
    page = output or Path(mkdtemp(prefix="publisher-report-")) / "index.html"
    _write(page, data)
    if not webbrowser.open(page.resolve().as_uri()):
        raise PrerequisiteError("no browser was found on this machine", hint=f"The page is here: {page}")
    note(f"Opened {page}")


def _render(package: Path, form: str) -> bytes:
    from publisher.registry import load_registry
    from publisher.report import load, render

    record = load(package)
    return render(record, load_registry().get("report_format", form).cls)


def _write(output: Path, data: bytes) -> None:
    from publisher.model.files import write_atomic

    write_atomic(output, data)
