"""``publisher verify``: check a package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from publisher.cli import output
from publisher.cli.options import policy_option, trusted, with_trust
from publisher.codes import Code, Finding
from publisher.errors import ExitCode, UsageError
from publisher.hub.fetch import Located, locate
from publisher.package.dsse import Anchor
from publisher.package.index import Verified, check_index
from publisher.package.keys import load_public
from publisher.package.layout import SUMS
from publisher.package.verify import Verification
from publisher.package.verify import verify as verify_package
from publisher.package.witness import Witness, check_witness
from publisher.policy import LoadedPolicy, PolicyAnswer, facts_of_report, judge_facts, load_policy
from publisher.text import printable

DAY = 86_400
"""Seconds."""


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@with_trust
@click.option("--name", help="Refuse a release of another name.")
@click.option("--min-version", metavar="VERSION", help="Refuse an older release: a server may hand you a stale one.")
@click.option("--hub", is_flag=True, hidden=True, expose_value=False, help="Does nothing any more.")
@click.option("--index", type=click.Path(path_type=Path), help="The publisher's index: refuse what it has revoked.")
@click.option(
    "--also", type=click.Path(path_type=Path), multiple=True, help="A statement of another party about the package."
)
@click.option(
    "--also-key", type=click.Path(path_type=Path), multiple=True, help="Public key of each --also, in the same order."
)
@policy_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verify(
    directory: Path,
    *,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    root: Path | None,
    name: str | None,
    min_version: str | None,
    index: Path | None,
    also: tuple[Path, ...],
    also_key: tuple[Path, ...],
    policy: Path | None,
    as_json: bool,
) -> int:
    """Check a package against who must have signed it: signature, files, weights, reports.

    DIRECTORY is the package's folder, also as a hub's client has downloaded it, or hf:ORG/NAME@REVISION: a tag, or the
    40 hex digits of a commit. That is fetched into the client's cache, where publisher.load finds the same files.

    Nothing in the package is loaded or run, and only what was signed is opened. Everything that is wrong is listed,
    each with a stable code. The publisher's own metrics measure again, from the evidence in the package; the answer
    names each check whose metric is another plugin's and was not run.

    Instead of a --key, an --identity can be expected: the name in a certificate below --root, or that of a keyless
    signature, for which --issuer vouches. Without --key a --policy's keys are tried.

    --index reads what `publisher index` signed with the same key: a version that it revokes, or does not know, is
    refused, and so is an index that has expired. --also reads what `publisher replay --sign` wrote.

    With --policy the release's record is held to it too, and what it breaks is said with the policy's line. Waivers are
    always shown.

    \b
    Examples:
      publisher verify releases/emoji-clean-1.0.0 --key keys/publisher.pub
      publisher verify package --key publisher.pub --name emoji-clean --min-version 1.0.0 --json
      publisher verify hf:acme/emoji-clean@v1.0.0 --key publisher.pub
      publisher verify package --identity release@acme.example --root acme-root.pem

    Exit codes: 0 verified; 1 not verified, or the policy is broken; 2 no key, or key, folder or policy cannot be read;
    3 could not decide.
    """
    rules = load_policy(policy) if policy else None
    given = trusted(key, identity, issuer, root)
    keys = [given] if given else list(rules.keys.values()) if rules else []
    if not keys:
        hint = "Give the publisher's public key, --identity, or a --policy that names keys."
        raise UsageError("there is no key to verify with: --key is missing", hint=hint)
    if len(also) != len(also_key):
        hint = "Give one --also-key for each --also, in the same order."
        raise UsageError(f"there are {len(also)} statements and {len(also_key)} keys", where="--also", hint=hint)
    package = locate(directory)
    for one in keys:
        found = verify_package(package.path, one, expect_name=name, min_version=min_version)
        if all(finding.code is not Code.UNTRUSTED_KEY for finding in found.findings):
            break
    found, witnesses = _told(found, one, index, also, also_key)
    answer = _held_to(rules, found) if rules else None
    if as_json:
        said = [witness.sentence() for witness in witnesses]
        output.document({**as_data(found, answer), "hub": _hub(package), "also": said})
    else:
        output.result("\n".join([as_text(found, package, answer), *_also(witnesses)]))
    return ExitCode.OK if found.ok and not (answer and answer.breaches) else ExitCode.REFUSED


def _told(
    found: Verification, trust: Path | Anchor, index: Path | None, also: Sequence[Path], keys: Sequence[Path]
) -> tuple[Verification, list[Witness]]:
    """Compare a package that verified with the publisher's index, and with what others say of it."""
    if not found.ok or found.summary is None:
        return found, []
    sums, findings, witnesses = found.digests[SUMS], list[Finding](), list[Witness]()
    if index is not None:
        mine = Verified(found.summary.name, found.summary.version, sums)
        findings += check_index(
            index, load_public(trust) if isinstance(trust, Path) else trust, mine, datetime.now(UTC)
        )
    for path, one in zip(also, keys, strict=True):
        witness, problems = check_witness(path, load_public(one), sums)
        witnesses += [witness] if witness else []
        findings += problems
    return replace(found, findings=tuple(findings)), witnesses


def _also(witnesses: Sequence[Witness]) -> list[str]:
    return [printable(f"  also says {witness.sentence()}") for witness in witnesses]


def _held_to(rules: LoadedPolicy, found: Verification) -> PolicyAnswer | None:
    """Return what a policy says of a package; None: the package did not verify, and nobody believes its record."""
    if found.report is None or found.decided is None:
        return None
    age = (datetime.now(UTC) - found.decided).total_seconds() / DAY
    return judge_facts(rules, facts_of_report(found.report, age), found.key)


def as_data(found: Verification, answer: PolicyAnswer | None = None) -> dict[str, Any]:
    """Return the answer as JSON data, with the policy's where there is one."""
    return {
        "verified": found.ok and not (answer and answer.breaches),
        **({"policy": answer.as_json()} if answer else {}),
        "key_sha256": found.key,
        "signer": found.signer,
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


def _waivers(found: Verification, answer: PolicyAnswer | None) -> list[str]:
    """Return the exceptions that were made when the package was released, and those that this policy makes."""
    claims = found.report.claims if found.report else ()
    then = {check.id: check.waiver for claim in claims for check in claim.checks if check.waiver}
    here = answer.waived if answer else {}
    said = [
        f"  {check}, when it was released: {one.sentence()}" for check, one in then.items() if one != here.get(check)
    ]
    return said + [f"  {check}: {one.sentence()}" for check, one in here.items()]


def as_text(found: Verification, package: Located, answer: PolicyAnswer | None = None) -> str:
    """Return the answer for a person, with control characters of foreign names written out."""
    if answer and answer.breaches:
        broken = [*(f"  {line}" for line in answer.lines()), *_waivers(found, answer)]
        head = f"NOT verified: {package} is what was signed, and breaks the policy"
        return "\n".join(map(printable, [head, *broken]))
    if found.ok and found.summary is not None:
        lines = [
            f"Verified: {found.summary.name} {found.summary.version}, decision {found.summary.decision}",
            *([f"  {package}"] if package.repository else []),
            f"  {found.files} files, signed with {found.signer}",
            *(f"  {claim.verdict}: {claim.sentence} ({claim.binds})" for claim in found.summary.claims),
            f"  {_some(found.recomputed.checks)} measured again from the evidence, with the same numbers and verdicts",
            *(f"  not measured again: {what}: {why}" for what, why in found.recomputed.others.items()),
            *([f"  it keeps the policy {answer.loaded.path}"] if answer else []),
            *_waivers(found, answer),
        ]
        return "\n".join(map(printable, lines))
    lines = [f"NOT verified: {package}"]
    for finding in found.findings:
        lines += [f"  {finding}", f"       {finding.code.title}. {finding.remedy}"]
    return "\n".join(map(printable, lines))
