"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("releases"),
    show_default=True,
    help="Folder for the package and its reports.",
)
work_option = click.option(
    "--work", type=click.Path(path_type=Path), help="Folder for finished steps and images.  [default: OUT/.work]"
)
