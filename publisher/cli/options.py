"""Options that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from publisher.cli import output
from publisher.errors import PrerequisiteError, UsageError

if TYPE_CHECKING:
    from publisher.package.dsse import Anchor

C = TypeVar("C", bound=Callable[..., Any])

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


_TRUST = (
    click.option(
        "--key",
        type=click.Path(path_type=Path),
        envvar="PUBLISHER_PUBLIC_KEY",
        show_envvar=True,
        help="The publisher's public key. It comes from the publisher, never from the package.",
    ),
    click.option(
        "--identity",
        metavar="NAME",
        help="In place of --key: who must have signed, by the name in a certificate. With --root or --issuer.",
    ),
    click.option(
        "--issuer",
        metavar="URL",
        help="Who vouched for the identity of a keyless signature (sigstore). Nothing is asked on a network.",
    ),
    click.option(
        "--root",
        type=click.Path(path_type=Path),
        help="What vouches for --identity, from the publisher: certificates in PEM; with --issuer a trusted_root.json "
        "of Sigstore.  [default: that of the public instance]",
    ),
)


def with_trust(command: C) -> C:
    """Add the options that say who must have signed."""
    for option in reversed(_TRUST):
        command = option(command)
    return command


def trusted(key: Path | None, identity: str | None, issuer: str | None, root: Path | None) -> Path | Anchor | None:
    """Return whom a command trusts; None: its options do not say.

    Raises:
        UsageError: they contradict each other, or a root cannot be read.
    """
    from publisher.package.anchors import trust

    if identity is None:
        if issuer or root:
            hint = "Give --identity with the name in the signer's certificate."
            raise UsageError("--issuer and --root say who vouches, but not for whom", hint=hint)
        return key
    source = click.get_current_context().get_parameter_source("key")
    if key is not None and source is ParameterSource.COMMANDLINE:
        raise UsageError("--key and --identity exclude each other")
    return trust(identity=identity, root=root, issuer=issuer)


def required_trust(key: Path | None, identity: str | None, issuer: str | None, root: Path | None) -> Path | Anchor:
    """Return whom a command trusts.

    Raises:
        UsageError: its options do not say, or contradict each other; or a root cannot be read.
    """
    anchor = trusted(key, identity, issuer, root)
    if anchor is None:
        hint = "Give --key with the publisher's public key, or --identity."
        raise UsageError("there is no key to verify the package with: --key is missing", hint=hint)
    return anchor


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
