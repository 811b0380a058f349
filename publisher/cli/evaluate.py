"""``publisher evaluate``: a model as it is, tested against its base."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from publisher.cli import output
from publisher.cli.release import claims_as_data
from publisher.program import command

if TYPE_CHECKING:
    from publisher.release.existing import TestOutcome


@click.command()
@click.argument("model")
@click.argument("manifest", type=click.Path(path_type=Path), required=False)
@click.option("--base", metavar="MODEL", help="The base model.  [default: the manifest's, or the package's own]")
@click.option(
    "--concept", "concepts", metavar="[KIND:]NAME", multiple=True, help="A concept that is to be gone: style:noto."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("evaluations"), show_default=True, help="Folder for reports."
)
@click.option("--work", type=click.Path(path_type=Path), help="Folder for images.  [default: OUT/.work]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--quiet", is_flag=True, help="No progress.")
def evaluate(
    model: str,
    manifest: Path | None,
    base: str | None,
    concepts: tuple[str, ...],
    out: Path,
    work: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    """Test a model as it is, made by anyone, against its base model.

    MODEL is a diffusers folder, a package, or hf:org/name@COMMIT. A package's own claims are tested again. Anything
    else is tested for the concepts of MANIFEST, or for those that --concept names: not generated from plain prompts nor
    synonyms, everything else as before. No step is run, nothing is packaged or signed. OUT/NAME.evaluation has the
    report and the evidence, as a release's.

    \b
    Examples:
      publisher evaluate theirs --base embedded:emoji --concept cigarette --concept style:noto
      publisher evaluate theirs manifest.yaml
      publisher evaluate releases/emoji-clean-1.0.0

    Exit codes: 0 all claims hold; 1 a gate failed; 2 edit the command, the manifest or the model; 3 could not decide;
    4 too little was measured; 130 and 143 interrupted.
    """
    from publisher.cli.console import Terminal
    from publisher.release.existing import evaluate_model

    work = work or out / ".work"
    with Terminal(quiet=quiet) as terminal:
        outcome = evaluate_model(model, out, work, terminal, base=base, manifest=manifest, concepts=concepts)
    if as_json:
        output.document(as_data(outcome))
    else:
        output.result(as_text(outcome))
    return outcome.code


def as_data(outcome: TestOutcome) -> dict[str, Any]:
    """Return the outcome as JSON data."""
    report = outcome.report
    return {
        "decision": outcome.decision,
        "exit_code": int(outcome.code),
        "model": report.tested.as_json() if report.tested else None,
        "base": report.model.as_json(),
        "reports": str(outcome.reports),
        "claims": claims_as_data(report),
        "seconds": round(outcome.seconds, 2),
    }


def as_text(outcome: TestOutcome) -> str:
    """Return the verdict, the claims and what to do next."""
    from publisher.report.terminal import lines

    folder = shlex.quote(str(outcome.reports))
    return "\n".join(
        [
            *lines(outcome.report),
            "",
            f"Report:     {outcome.reports / 'index.html'}",
            f"Compare it: {command(f'compare {folder} ANOTHER')}",
        ]
    )
