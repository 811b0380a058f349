"""``publisher verify``: check a package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from publisher.cli import output
from publisher.errors import ExitCode
from publisher.hub.fetch import Located, locate
from publisher.package.verify import Verification
from publisher.package.verify import verify as verify_package
from publisher.text import printable


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    envvar="PUBLISHER_PUBLIC_KEY",
    show_envvar=True,
    help="The publisher's public key. It comes from the publisher, never from the package.",
)
@click.option("--name", help="Refuse a release of another name.")
@click.option("--min-version", metavar="VERSION", help="Refuse an older release: somebody may serve you a stale one.")
@click.option("--hub", is_flag=True, hidden=True, expose_value=False, help="Does nothing any more.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verify(directory: Path, *, key: Path, name: str | None, min_version: str | None, as_json: bool) -> int:
    """Check a package against a public key: signature, files, weights, reports.

    DIRECTORY is the package's folder, also as a hub's client has downloaded it, or hf:ORG/NAME@REVISION: a tag, or the
    40 hex digits of a commit. That is fetched into the client's cache, where publisher.load finds the same files.

    Nothing in the package is loaded or run, and only what was signed is opened. Everything that is wrong is listed,
    each with a stable code. The publisher's own metrics measure again, from the evidence in the package; the answer
    names each check whose metric is another plugin's and was not run.

    \b
    Examples:
      publisher verify releases/emoji-clean-1.0.0 --key keys/publisher.pub
      publisher verify package --key publisher.pub --name emoji-clean --min-version 1.0.0 --json
      publisher verify hf:acme/emoji-clean@v1.0.0 --key publisher.pub

    Exit codes: 0 verified; 1 not verified; 2 no key, or key or folder cannot be read; 3 could not decide.
    """
    package = locate(directory)
    found = verify_package(package.path, key, expect_name=name, min_version=min_version)
    if as_json:
        output.document({**as_data(found), "hub": _hub(package)})
    else:
        output.result(as_text(found, package))
    return ExitCode.OK if found.ok else ExitCode.REFUSED


def as_data(found: Verification) -> dict[str, Any]:
    """Return the answer as JSON data."""
    return {
        "verified": found.ok,
        "key_sha256": found.key,
        "files": found.files,
        "release": found.summary.as_json() if found.summary else None,
        "recomputed": found.recomputed.checks,
        "not_recomputed": found.recomputed.others,
        "findings": [
            {
                "code": finding.code.value,
                "meaning": finding.code.title,
                "path": finding.path,
                "message": finding.message,
            }
            for finding in found.findings
        ],
    }


def _hub(package: Located) -> dict[str, str] | None:
    """Return where on the hub the package is; None: it was a folder."""
    if not package.repository:
        return None
    return {"repository": package.repository, "revision": package.revision, "commit": package.commit}


def _some(checks: Sequence[str]) -> str:
    return "1 check was" if len(checks) == 1 else f"{len(checks)} checks were"


def as_text(found: Verification, package: Located) -> str:
    """Return the answer for a person, with control characters of foreign names written out."""
    if found.ok and found.summary is not None:
        lines = [
            f"Verified: {found.summary.name} {found.summary.version}, decision {found.summary.decision}",
            *([f"  {package}"] if package.repository else []),
            f"  {found.files} files, signed with the key {found.key[:16]}",
            *(f"  {claim.verdict}: {claim.sentence} ({claim.binds})" for claim in found.summary.claims),
            f"  {_some(found.recomputed.checks)} measured again from the evidence, with the same numbers and verdicts",
            *(f"  not measured again: {what}: {why}" for what, why in found.recomputed.others.items()),
        ]
        return "\n".join(map(printable, lines))
    lines = [f"NOT verified: {package}"]
    for finding in found.findings:
        lines += [f"  {finding}", f"       {finding.code.title}. {finding.remedy}"]
    return "\n".join(map(printable, lines))
