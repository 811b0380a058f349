"""``publisher push``: put a verified package on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import click

from publisher.cli import output
from publisher.cli.options import trusted, with_trust
from publisher.errors import ExitCode, UsageError
from publisher.program import command

if TYPE_CHECKING:
    from publisher.hub.client import HubClient
    from publisher.hub.contents import LocalPackage
    from publisher.hub.push import Pushed, PushPlan
    from publisher.package.dsse import Anchor

RECORD = "push.json"


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.argument("repository", metavar="ORG/NAME")
@with_trust
@click.option("--pr", "pull_request", is_flag=True, help="Open a pull request, and change no branch. Sets no tag.")
@click.option("--revision", "branch", metavar="BRANCH", default="main", show_default=True, help="It must be there.")
@click.option("--public", is_flag=True, help="Make the repository public. A new one is private otherwise.")
@click.option("--gated", type=click.Choice(["auto", "manual"]), help="Downloads have to be asked for.")
@click.option("--tag", metavar="NAME", help="Name of the tag.  [default: v and the release's version]")
@click.option("--no-tag", is_flag=True, help="Set no tag.")
@click.option("--prune", is_flag=True, help="Delete what is in the repository and not in the package.")
@click.option("--dry-run", is_flag=True, help="Verify, look at the repository, say what would be done.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def push(
    package: Path,
    repository: str,
    *,
    key: Path | None,
    identity: str | None,
    issuer: str | None,
    root: Path | None,
    pull_request: bool,
    branch: str,
    public: bool,
    gated: Literal["auto", "manual"] | None,
    tag: str | None,
    no_tag: bool,
    prune: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Put a package on the hub: verified first, in one commit, compared by digests, then tagged.

    It is verified as `publisher verify` does it; without --key and --identity with PACKAGE.pub, if that is there.

    Files of the repository that are not in the package forbid the push: who downloads all would not have what was
    signed. Nothing is sent that the hub has already, so the same command goes on after a failure. What was done is
    kept as push.json in PACKAGE.report, or beside the package as PACKAGE.push.json. Credentials are those that
    `hf auth login`, HF_TOKEN or a Trusted Publisher (HF_OIDC_RESOURCE) give to huggingface_hub.

    \b
    Examples:
      publisher push releases/emoji-clean-1.0.0 acme/emoji-clean --key keys/publisher.pub --dry-run
      publisher push releases/emoji-clean-1.0.0 acme/emoji-clean --key keys/publisher.pub --gated manual
      publisher push releases/emoji-clean-1.0.0 acme/emoji-clean --key keys/publisher.pub --pr --json

    Exit codes: 0 pushed, and the hub holds what was signed; 1 not verified, foreign files, a tag at other files, or a
    lost race; 2 a bad name, no right, or the card's metadata refused; 3 network, a fault of the hub, or it holds
    something else.
    """
    from publisher.hub.contents import LocalPackage
    from publisher.hub.fetch import Located
    from publisher.hub.push import Push, PushOptions
    from publisher.loading import require_verified

    if tag is not None and no_tag:
        raise UsageError("--tag and --no-tag exclude each other")
    if package.name in ("", ".."):
        package = package.resolve()  # its key and its reports are named after it
    found = require_verified(
        Located(package), _trust(package, trusted(key, identity, issuer, root)), "nothing was sent"
    )
    if found.summary is None:
        raise UsageError("the package has no summary", where=str(package))
    local = LocalPackage(package, found.digests, found.summary, found.key, found.signer)
    options = PushOptions(repository, branch, pull_request, public, gated, None if no_tag else tag or "", prune)
    client = _client()
    work = Push(client, local, options, output.note)
    if dry_run:
        plan = work.plan()
        data = {"dry_run": True, **_about(local, repository), **_planned(plan)}
        _show(data, _plan_text(plan, repository), as_json=as_json)
        work.require_no_foreign(plan)
        return ExitCode.OK
    done = work.run()
    data = {**_about(local, repository), **_done(done, client, branch)}
    record = _record(package)
    _write(record, data)
    _show(data, _done_text(done, local, repository, record), as_json=as_json)
    return ExitCode.OK


def _trust(package: Path, given: Path | Anchor | None) -> Path | Anchor:
    """Return who must have signed: what was given, or the key beside a package that was signed for trying it out."""
    from publisher.release.places import key_of

    beside = key_of(package)
    if given is None and not beside.is_file():
        raise UsageError("there is no key to verify the package with", hint="Give --key PUBLISHER.pub, or --identity.")
    return given or beside


def _client() -> HubClient:
    """Return the door to the hub; from here on no text can show its token."""
    from publisher.hub.client import HubClient

    client = HubClient(lambda text: output.note(f"Warning: {text}"))
    for secret in client.secrets:
        output.hide(secret)
    return client


def _record(package: Path) -> Path:
    """Return where a push is noted: in the release's report folder, else beside the package."""
    from publisher.release.places import reports_of

    reports = reports_of(package)
    return reports / RECORD if reports.is_dir() else package.with_name(f"{package.name}.{RECORD}")


def _write(record: Path, data: dict[str, Any]) -> None:
    from publisher.model.files import json_bytes, write_atomic

    write_atomic(record, json_bytes(data))


def _about(package: LocalPackage, repository: str) -> dict[str, Any]:
    from publisher.package.layout import SUMS

    return {
        "repository": repository,
        "name": package.summary.name,
        "version": package.summary.version,
        "files": len(package.digests),
        "key_sha256": package.key,
        "signer": package.signer,
        "sums_sha256": package.digests[SUMS],
    }


def _planned(plan: PushPlan) -> dict[str, Any]:
    return {
        "parent": plan.parent or None,
        "added": list(plan.add),
        "deleted": list(plan.delete),
        "foreign": list(plan.foreign),
        "tag": plan.tag or None,
        "tagged": plan.tagged or None,
    }


def _done(done: Pushed, client: HubClient, branch: str) -> dict[str, Any]:
    return {
        **_planned(done.plan),
        "endpoint": _without_credentials(client.api.endpoint),
        "commit": done.commit,
        "branch": None if done.pull_request else branch,
        "pull_request": done.pull_request,
        "tag": (done.plan.tag or None) if done.tagged else None,
        "tagged": done.tagged or None,
        "private": done.private,
        "gated": done.gated or None,
    }


def _without_credentials(address: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _show(data: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        output.document(data)
    else:
        output.result(text)


def _plan_text(plan: PushPlan, repository: str) -> str:
    from publisher.hub.contents import listed

    where = (
        f"on commit {plan.parent}" if plan.parent else "in a new repository (none is there, or none that you may see)"
    )
    lines = [
        f"Would push to {repository}, {where}",
        f"  {len(plan.add)} files to add or change" + (f": {listed(plan.add)}" if plan.add else ""),
        *([f"  {len(plan.delete)} files to delete: {listed(plan.delete)}"] if plan.delete else []),
        *([f"  in the way: {listed(plan.foreign)}"] if plan.foreign else []),
        *(
            [f"  tag {plan.tag}" + (f", which is at commit {plan.tagged} already" if plan.tagged else "")]
            * bool(plan.tag)
        ),
    ]
    return "\n".join(lines)


def _done_text(done: Pushed, package: LocalPackage, repository: str, record: Path) -> str:
    about, plan = package.summary, done.plan
    seen = "private" if done.private else "public"
    lines = [f"Pushed: {about.name} {about.version} to {repository}, commit {done.commit}"]
    if done.pull_request:
        lines.append(
            f"  pull request {done.pull_request}: no branch was changed; after merging, push again for the tag"
        )
    if done.tagged:
        lines.append(f"  tag {plan.tag} at commit {done.tagged}")
    lines.append(f"  {seen}" + (f", downloads have to be asked for ({done.gated})" if done.gated else ""))
    lines.append(f"  noted in {record}")
    name = f"hf:{repository}@{plan.tag if done.tagged else done.commit}"
    return "\n".join([*lines, "", f"Verify it: {command(f'verify {name} --key PUBLISHER.pub')}"])
