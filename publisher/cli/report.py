"""``publisher report``: show, convert or open the report of a release."""

from __future__ import annotations

import hashlib
import webbrowser
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import click

from publisher.cli.output import file as print_file
from publisher.cli.output import note, result, result_is_seen, results_stream
from publisher.errors import PrerequisiteError, UsageError
from publisher.program import command

if TYPE_CHECKING:
    from publisher.api import ReleaseReport
    from publisher.ci.places import Sites

PLACED = ("sarif", "github")
"""Forms that name places in a manifest. They are made on demand, and are no part of a package."""
CHECK = "verify PACKAGE --key PUBLISHER.pub"


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", metavar="NAME", help="html, json, junit, markdown, sarif, github, or what a plugin adds."
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The release's manifest: sarif and github then name its lines.",
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.  [default: stdout]"
)
@click.option("--open", "browse", is_flag=True, help="Open the page in a browser.")
def report(package: Path, form: str | None, manifest: Path | None, output: Path | None, *, browse: bool) -> None:
    """Show, convert or open the report of a release.

    PACKAGE is a package, a report folder, or a report.json. Without --format: verdict, claims and checks in brief.

    Every form is rendered again from report.json; nothing of the package is run or opened. The signature is not
    checked: `publisher verify` does that. The exit code says whether the report could be shown, not what it says.

    sarif (for code scanning) and github (annotations of a log) hold what did not pass. A report has no paths: with
    --manifest they name the lines of that file, if it is the one that the release was made from. junit has the seconds
    of each check where timings.json lies beside the report.

    \b
    Examples:
      publisher report releases/emoji-clean-1.0.0
      publisher report releases/emoji-clean-1.0.0 --open
      publisher report releases/emoji-clean-1.0.0 --format markdown >> "$GITHUB_STEP_SUMMARY"
      publisher report out/report --format sarif --manifest manifest.yaml --output publisher.sarif
    """
    if browse and form not in (None, "html"):
        raise UsageError(f"--open shows the HTML page, not {form!r}", hint="Leave out --format, or --open.")
    if not browse and output and form is None:
        raise UsageError("--output needs --format", hint="For a page: --format html --output report.html")
    if manifest and form not in PLACED:
        raise UsageError(f"--manifest goes with --format {' or '.join(PLACED)}", hint="The other forms name no lines.")
    if browse:
        _browse(package, output)
    elif form is None:
        _summary(package)
    else:
        _convert(package, form, output, manifest)
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


def _convert(package: Path, form: str, output: Path | None, manifest: Path | None) -> None:
    data = _placed(package, form, manifest) if form in PLACED else _render(package, form)
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


def _placed(package: Path, form: str, manifest: Path | None) -> bytes:
    from publisher.ci import annotate, as_sarif, of_report, rules_of
    from publisher.report import load

    record = load(package)
    if manifest is None:
        note("A report has no paths. GitHub takes only results with a place in a file: give --manifest FILE.")
    found = of_report(record, _sites(manifest, record) if manifest else None)
    return as_sarif(found, rules_of([record]), record.name) if form == "sarif" else annotate(found)


def _sites(path: Path, record: ReleaseReport) -> Sites:
    """Return the places of a manifest; without lines, and with a note, where it is another one than was released."""
    from publisher.ci.places import Sites
    from publisher.manifest.loader import read_bytes

    raw = read_bytes(path)
    same = hashlib.sha256(raw).hexdigest() == record.manifest_sha256
    if not same:
        note(f"{path} is not the manifest that this release was made from, so no lines of it are named.")
    return Sites(path, raw if same else None)


def _render(package: Path, form: str) -> bytes:
    from publisher.registry import load_registry
    from publisher.report import load, render
    from publisher.report.reader import seconds_of_checks

    record = load(package)
    return render(record, load_registry().get("report_format", form).cls, seconds_of_checks(package))


def _write(output: Path, data: bytes) -> None:
    from publisher.model.files import write_atomic

    write_atomic(output, data)
