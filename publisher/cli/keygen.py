"""``publisher keygen``: make a key pair."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from publisher.cli import output
from publisher.cli.options import passphrase
from publisher.errors import UsageError
from publisher.package import keys
from publisher.program import command

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the two files.")
@click.option("--name", default="publisher", show_default=True, help="Name of the files: NAME.key and NAME.pub.")
@click.option(
    "--passphrase-env", metavar="VARIABLE", help="Environment variable with a passphrase that encrypts the private key."
)
def keygen(*, out: Path, name: str, passphrase_env: str | None) -> None:
    """Make an EC P-256 key pair for signing. Existing files are never overwritten.

    \b
    Examples:
      publisher keygen --out keys
      publisher keygen --out keys --name release-2026 --passphrase-env KEY_PASSPHRASE
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no file name", where="--name", hint="Letters, digits and ._- only.")
    private, public = out / f"{name}.key", out / f"{name}.pub"
    keys.generate(private, public, passphrase(passphrase_env, "--passphrase-env"))
    hint = keys.load_public(public).hint
    output.result(f"private key: {private}\npublic key:  {public}\nsha256 of the public key: {hint}")
    closed = "encrypted" if passphrase_env else "not encrypted: --passphrase-env would do that"
    output.note(
        f"\nThe private key is readable by you alone and {closed}. Keep a copy where no machine can reach it;\n"
        f"name it in the manifest under 'sign'. Give {public.name} to those who verify, by another way than\n"
        f"the package: {command(f'verify PACKAGE --key {shlex.quote(str(public))}')}"
    )
