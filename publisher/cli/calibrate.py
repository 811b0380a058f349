"""``publisher calibrate``: count a scorer's errors about one concept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from publisher.cli import output
from publisher.cli.console import Terminal
from publisher.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from publisher.api import CalibrationSheet, Tally

CLEAN = 300
"""Images without the concept for which the answer says what they would show."""


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--scorer", required=True, help="An entry's id under evaluate.scorers, or the name of a scorer.")
@click.option("--concept", required=True, help="Id of a concept of the manifest.")
@click.option("--positives", type=click.Path(path_type=Path), help="Folder of images that show the concept.")
@click.option("--negatives", type=click.Path(path_type=Path), help="Folder of images that do not.")
@click.option(
    "--again",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="POSITIVES NEGATIVES",
    help="The same images as a second person sorted them: those that both sort alike are counted.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File for the sheet; never overwritten.")
@click.option(
    "--specificity",
    type=click.FloatRange(0, 1),
    default=0.98,
    show_default=True,
    help="Least share of the negatives to pass over, where a threshold is chosen.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the shuffle that halves them.")
@click.option("--about", default="", help="What the images are and who sorted them, in a few words.")
@click.option("--from-base", type=click.IntRange(20), help="Generate so many images in place of the folders.")
@click.option("--work", type=click.Path(path_type=Path), help="Folder that keeps generated images.")
@click.option("--json", "as_json", is_flag=True, help="The sheet as one JSON document.")
def calibrate(
    manifest: Path,
    *,
    scorer: str,
    concept: str,
    positives: Path | None,
    negatives: Path | None,
    again: tuple[Path, Path] | None,
    out: Path,
    specificity: float,
    seed: int,
    about: str,
    from_base: int | None,
    work: Path | None,
    as_json: bool,
) -> int:
    """Count a scorer's errors about one concept, and write a calibration sheet.

    Two folders hold images that people have sorted. Half of each chooses the threshold, if the scorer has strengths and
    MANIFEST gives no threshold; the other half alone is counted. Images of one sub-folder stay together. They are read
    and never copied: nothing but counts leaves. With --from-base the base model generates images, and the counts are
    bounds that need no labels. The sheet holds for this scorer, its weights and parameters, and this size of images.

    \b
    Examples:
      publisher calibrate manifest.yaml --scorer nudenet --concept nudity --positives nude --negatives dressed
          --out calibration/nudity.json
      publisher calibrate manifest.yaml --scorer emoji --concept skull --from-base 200 --out skull.json

    Exit codes: 0 the sheet is written; 1 the scorer may be no better than chance, and no sheet is written; 2 edit the
    command, the manifest or the folders; 3 it could not be done.
    """
    from publisher.evaluate.sheets import sheet_bytes
    from publisher.model.files import write_atomic
    from publisher.release.calibrate import Calibration, Labelled, worth

    if out.exists():
        raise UsageError("there is a file already", where=str(out), hint="Give another name with --out.")
    folders = (positives, negatives)
    if (from_base is None) == (positives is None) or (positives is None) != (negatives is None):
        hint = "Sort images into two folders, or let the base model generate them."
        raise UsageError("give --positives and --negatives, or --from-base", where="calibrate", hint=hint)
    if again and from_base is not None:
        raise UsageError("nobody sorts images with --from-base", where="--again", hint="Leave one of them out.")
    with Terminal() as terminal:
        calibration = Calibration(manifest, scorer, concept)
        if from_base is not None:
            sheet = calibration.from_base(
                from_base, work, lambda done, total, text: terminal.update("calibrate", done, total, text)
            )
        else:
            first, second = (folder or Path() for folder in folders)
            sheet = calibration.labelled(Labelled(first, second, specificity, seed, about, again))
    said, refused = worth(sheet, CLEAN)
    if not refused:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, sheet_bytes(sheet))
    if as_json:
        output.document(sheet.as_json())
    else:
        seen = os.path.relpath(out, manifest.parent)  # paths in a manifest are relative to it
        output.result("\n".join(_lines(sheet, said, "" if refused else seen)))
    return ExitCode.REFUSED if refused else ExitCode.OK


def _lines(sheet: CalibrationSheet, said: str, written: str) -> list[str]:
    verb, others = ("ask for it", "ask for something else") if sheet.method == "base" else ("show it", "do not")
    lines = [
        f"{sheet.scorer} about the {sheet.kind} {sheet.label}, images of {sheet.size[1]} x {sheet.size[0]} pixels",
        f"  sees it in {_of(sheet.positives)} that {verb}",
        f"  sees it in {_of(sheet.negatives)} that {others}",
    ]
    if sheet.labellers:
        lines.append(f"  two people sorted {sheet.labellers.n} of these images, {sheet.labellers.alike} of them alike")
    lines += ["  these shares are bounds of its errors"] if sheet.method == "base" else []
    if sheet.chosen_on:
        threshold = sheet.params["threshold"]
        lines.append(f"  threshold {threshold!r}, chosen on as many others; write in the manifest:")
        lines.append(f"    with: {{threshold: {threshold!r}}}")
    lines += [f"  {sheet.duplicates} images left out, whose pixels were there already"] if sheet.duplicates else []
    lines.append(f"  {said}")
    lines.append(f"written; name it in the manifest: calibration: {written}" if written else "not written")
    return lines


def _of(tally: Tally) -> str:
    return f"{tally.hits} of {tally.n} images"
