"""A package by its name on the hub, ``hf:org/name@REVISION``: resolved to a commit, fetched into the client's cache."""

from __future__ import annotations

import re
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from publisher.api.hub_names import plain_names
from publisher.errors import UsageError
from publisher.hub.client import COMMIT, HubClient
from publisher.hub.errors import HubRefusedError, HubUnreachableError
from publisher.package.layout import SIGNATURE

PREFIX = "hf:"
_NAMED = re.compile(r"hf:(?P<repository>[\w-][\w.-]*/[\w.-]+)@(?P<revision>[\w][\w.+-]*)", re.ASCII)
_HOW = "Write hf:ORG/NAME@ and a tag, such as v1.0.0, or the 40 hex digits of a commit."


@dataclass(frozen=True)
class Located:
    """Where a package lies on this machine."""

    path: Path
    """Its folder: what was verified there is what is loaded."""
    repository: str = ""
    """``org/name``; empty for a folder."""
    revision: str = ""
    """Tag or commit, as it was asked for."""
    commit: str = ""
    """What the revision stands for."""

    def __str__(self) -> str:
        if not self.repository:
            return str(self.path)
        name = f"{PREFIX}{self.repository}@{self.revision}"
        return name if self.revision == self.commit else f"{name}, commit {self.commit}"


def locate(package: str | Path) -> Located:
    """Return a package's folder; one that is named on the hub is fetched.

    All files of the commit are fetched into the cache of the hub's client: whether they are what was signed, and
    whether there are others, ``verify`` says. Without a network a commit is taken from the cache as it is there.

    Args:
        package: a folder, or ``hf:org/name@`` and a tag or the 40 hexadecimal digits of a commit.

    Raises:
        UsageError: the name is malformed, the hub does not know it, or it is the name of a branch.
        HubUnreachableError: the hub cannot be asked, and the cache does not have it.
        HostileHubError: the hub's answer cannot be an honest one.
    """
    name = str(package)
    if not name.startswith(PREFIX):
        return Located(Path(package))
    match = _NAMED.fullmatch(name)
    if match is None:
        raise UsageError("this is no package of the hub", where=name, hint=_HOW)
    repository, revision = match["repository"], match["revision"]
    client = HubClient()
    commit = revision if COMMIT.fullmatch(revision) else _resolved(client, repository, revision)
    return Located(_fetched(client, repository, commit), repository, revision, commit)


def _resolved(client: HubClient, repository: str, tag: str) -> str:
    """Return the commit of a tag; a branch moves with every push, and is refused."""
    where = f"{PREFIX}{repository}@{tag}"
    refs = client.ask("list the tags", client.api.list_repo_refs, repository)
    branch = next((one for one in refs.branches if one.name == tag), None)
    if branch is not None:
        commit = client.require_commit(branch.target_commit, repository)
        hint = f"Give a tag, or the commit that it is at now: {PREFIX}{repository}@{commit}"
        raise UsageError("this is a branch, which moves with every push", where=where, hint=hint)
    if not any(one.name == tag for one in refs.tags):
        known = ", ".join(client.without_secrets(one.name) for one in refs.tags[-5:]) or "none"
        raise HubRefusedError("the repository has no such tag", where=where, hint=f"Tags: {known}.\n{_HOW}")
    info = client.ask("resolve the tag", client.api.model_info, repository, revision=tag)
    return client.require_commit(info.sha, repository)


def _fetched(client: HubClient, repository: str, commit: str) -> Path:
    """Return the commit's snapshot in the cache, with every file that the hub lists."""
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    try:
        names = client.files(repository, commit)
    except HubUnreachableError:
        cached = try_to_load_from_cache(repository, SIGNATURE, revision=commit)
        if isinstance(cached, str):
            return Path(cached).parent  # a commit does not change, and a file that is not there is a finding
        raise
    with plain_names(repository):
        folder = client.ask(
            "send the files",
            snapshot_download,
            repository,
            revision=commit,
            allow_patterns=[escape(name) for name in sorted(names)],
            token=client.api.token,
        )
    return Path(folder)
