"""Options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path

import click

from publisher.cli import output
from publisher.errors import PrerequisiteError, UsageError

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
policy_option = click.option(
    "--policy",
    type=click.Path(path_type=Path, dir_okay=False),
    help="An organisation's minimum, besides the release's own gates. It can only refuse more.",
)


def environment(variable: str, where: str) -> str:
    """Return what an environment variable holds. Neither that nor the variable's name is shown in an error.

    What was given as the name can be the secret itself: ``--passphrase-env "$PASSPHRASE"``.

    Raises:
        UsageError: an option names a variable that is not there, or empty.
        PrerequisiteError: the manifest does.
    """
    value = os.environ.get(variable, "")
    if not value:
        kind = UsageError if where.startswith("--") else PrerequisiteError
        raise kind(
            "the environment variable that it names is not set",
            where=where,
            hint="Give the name of a variable, not what it holds: export NAME=..., and write NAME here.",
        )
    return value


def passphrase(variable: str | None, where: str) -> bytes | None:
    """Return the passphrase that an environment variable holds; from here on no message can show it."""
    if variable is None:
        return None
    value = environment(variable, where)
    output.hide(value)
    return value.encode()
