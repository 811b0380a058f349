"""``publisher index``: say which versions of a package exist, and which are revoked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from packaging.version import InvalidVersion, Version

from publisher.cli import output
from publisher.cli.options import passphrase
from publisher.errors import ExitCode, UsageError
from publisher.text import printable

if TYPE_CHECKING:
    from publisher.package.index import Revoked


@click.command()
@click.argument("packages", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--key", metavar="KEY", required=True, help="The private key that signed the packages: a path, env:NAME or pkcs11:."
)
@click.option("--passphrase-env", metavar="VARIABLE", help="Environment variable with its passphrase or PIN.")
@click.option("--revoke", metavar="VERSION=REASON", multiple=True, help="A version that nobody is to use any more.")
@click.option("--latest", metavar="VERSION", help="Version to use.  [default: the highest that is not revoked]")
@click.option(
    "--expires", type=click.DateTime(["%Y-%m-%d"]), required=True, help="Day from which on the index says nothing."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="File for the index; replaced.")
def index(
    packages: tuple[Path, ...],
    *,
    key: str,
    passphrase_env: str | None,
    revoke: tuple[str, ...],
    latest: str | None,
    expires: datetime,
    out: Path,
) -> int:
    """Sign an index of a package's versions, for `verify --index`.

    PACKAGES are all versions that exist, revoked ones too; each is verified first. The index says which is the latest,
    which are revoked and why, and until when it holds. Publish it where people look, and sign a new one before it
    expires: who serves an old index can hide what was revoked since, but not for longer.

    \b
    Examples:
      publisher index releases/emoji-clean-1.0.0 releases/emoji-clean-1.0.1 --key keys/publisher.key
          --revoke "1.0.0=skull comes back by its synonym" --expires 2027-03-01 --out emoji-clean.index.json

    Exit codes: 0 signed; 1 a package does not verify; 2 edit the command; 3 it could not be done.
    """
    from publisher.model.files import write_atomic
    from publisher.package.index import Index, index_statement
    from publisher.package.keys import KeySigner
    from publisher.package.layout import SUMS
    from publisher.package.sign import attest
    from publisher.package.signers import signer
    from publisher.package.verify import verify

    signing = signer(key, passphrase(passphrase_env, "--passphrase-env"))
    if not isinstance(signing, KeySigner):
        raise UsageError("an index is signed with a key", where="--key", hint="Give a path, env:NAME or a pkcs11: URI.")
    versions: dict[str, str] = {}
    names = set()
    for package in packages:
        found = verify(package, signing.anchor)
        if not found.ok or found.summary is None:
            output.result(printable(f"NOT signed: {package} does not verify with this key: {found.findings[0]}"))
            return ExitCode.REFUSED
        names.add(found.summary.name)
        versions[found.summary.version] = found.digests[SUMS]
    if len(names) != 1:
        raise UsageError(f"these are packages of {len(names)} names: {', '.join(sorted(names))}", where="PACKAGES")
    revoked = tuple(_revoked(one, versions) for one in revoke)
    left = [version for version in versions if version not in {one.version for one in revoked}]
    chosen = latest or max(left, key=_version, default="")
    if chosen not in left:
        hint = "Publish a version that is not revoked, and give it as well."
        raise UsageError("no version is left to be the latest", where="--latest", hint=hint)
    said = Index(
        name=names.pop(),
        latest=chosen,
        revoked=revoked,
        expires=expires.replace(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    write_atomic(out, attest(index_statement(said, versions), signing))
    output.result(
        f"Signed: {out}\n  {len(versions)} versions of {said.name}, the latest {chosen}, {len(revoked)} revoked,"
        f" until {said.expires}"
    )
    return ExitCode.OK


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        hint = "Versions that follow PEP 440 can be ordered; for others say which is the latest."
        raise UsageError(f"{text!r} cannot be ordered among the versions", where="--latest", hint=hint) from None


def _revoked(given: str, versions: Mapping[str, str]) -> Revoked:
    from publisher.package.index import Revoked

    version, _, reason = given.partition("=")
    if not reason.strip():
        raise UsageError(f"{given!r} gives no reason", where="--revoke", hint="Write VERSION=REASON, in quotes.")
    if version not in versions:
        known = ", ".join(sorted(versions))
        raise UsageError(f"{version!r} is none of the packages' versions: {known}", where="--revoke")
    return Revoked(version=version, reason=reason.strip())
