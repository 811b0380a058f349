"""Put a verified package on the hub: one commit, compared with what the hub then holds, and a tag.

The order: the repository is made, or looked at; its tag and foreign files are looked at before anything is sent; one
commit on the parent that was looked at; digests are compared without fetching; settings; the tag. All of it can be done
again: what the hub has already is not sent, and a commit that changes nothing is not made.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from publisher.errors import UsageError
from publisher.hub.client import HubClient
from publisher.hub.contents import LocalPackage, listed
from publisher.hub.errors import HubRefusedError, NotPushedError, RemoteDiffersError
from publisher.package.layout import SUMS

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

MAIN = "main"
RESULTS = ".eval_results/"
"""Results that others have put into a repository: never deleted."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)
_REF = re.compile(r"[A-Za-z0-9_][\w.+-]{0,99}", re.ASCII)
_PULL_REQUEST = re.compile(r"/discussions/(\d{1,9})/?$")


@dataclass(frozen=True)
class PushOptions:
    """Where and how to push."""

    repository: str
    """``org/name``."""
    branch: str = MAIN
    """It must be there."""
    pull_request: bool = False
    """Propose the commit and change no branch."""
    public: bool = False
    """Everybody may see the repository; otherwise a new one is private, and an existing one stays as it is."""
    gated: Literal["auto", "manual"] | None = None
    """Downloads have to be asked for; None: that stays as it is."""
    tag: str | None = ""
    """Empty: ``v`` and the release's version; None: no tag."""
    prune: bool = False
    """Delete files of the repository that are not in the package."""


@dataclass(frozen=True)
class PushPlan:
    """What a push would do, before anything is sent."""

    parent: str
    """Commit that it builds on; empty: the repository is not there."""
    add: tuple[str, ...]
    """Files that the hub does not hold as they are."""
    delete: tuple[str, ...]
    """Files that are not in the package, and go."""
    foreign: tuple[str, ...]
    """Files that are not in the package, and would stay: they forbid the push."""
    tag: str
    """Empty: none."""
    tagged: str
    """Commit that the tag is at already, with the package's files; empty: there is no such tag."""


@dataclass(frozen=True)
class Pushed:
    """What a push has done."""

    plan: PushPlan
    commit: str
    """Commit at which the hub holds the package."""
    pull_request: int | None
    tagged: str
    """Commit that the tag is at; empty: no tag."""
    private: bool
    gated: str
    """``auto`` or ``manual``; empty: downloads need not be asked for."""


class Push:
    """One push of a package.

    Args:
        client: the door to the hub.
        package: what was verified.
        options: where and how.
        say: is told what was done.

    Raises:
        UsageError: a malformed name of the repository, the branch or the tag.
    """

    def __init__(
        self, client: HubClient, package: LocalPackage, options: PushOptions, say: Callable[[str], None]
    ) -> None:
        self._client, self._api = client, client.api
        self._package, self._options, self._say = package, options, say
        self._name = options.repository
        self._tag = _checked(options, package.summary.version)

    def plan(self) -> PushPlan:
        """Look at the repository, and change nothing.

        Raises:
            NotPushedError: the tag is there, at other files.
            PublisherError: the hub does not show it.
        """
        there = self._client.ask("say whether the repository is there", self._api.repo_exists, self._name)
        if there:
            return self._plan(self._head())
        return PushPlan("", tuple(sorted(self._package.digests)), (), (), self._tag, "")

    def run(self) -> Pushed:
        """Push, and compare.

        Raises:
            NotPushedError: foreign files, a tag at other files, or a lost race.
            RemoteDiffersError: what the hub holds after the commit is not the package.
            HubRefusedError: no right, or not acceptable to the hub.
            HubUnreachableError: the hub does not answer; the same push goes on.
        """
        private = not self._options.public
        make = self._api.create_repo
        self._client.ask("make the repository", make, self._name, private=private, exist_ok=True)
        plan = self._plan(self._head())
        self.require_no_foreign(plan)
        open_already = not self._info().private
        if open_already:
            self._settle()  # a gate closes before the files are there
        commit, number = self._commit(plan)
        self._compare(commit)
        if not open_already:
            self._settle()
        tagged = self._set_tag(plan, commit) if plan.tag else ""
        info = self._info()
        return Pushed(plan, commit, number, tagged, bool(info.private), str(info.gated or ""))

    def require_no_foreign(self, plan: PushPlan) -> None:
        """Refuse a repository with files that the package does not have, and that would stay.

        Raises:
            NotPushedError: there are some: a download of all files would not be the package.
        """
        if plan.foreign:
            hint = f"Delete them on the hub, if they may go. --prune deletes all but {RESULTS}."
            what = f"the repository has files that are not in the package: {listed(plan.foreign)}"
            raise NotPushedError(f"{what}; nothing was sent", where=self._name, hint=hint)

    def _info(self) -> Any:
        return self._client.ask("show the repository", self._api.model_info, self._name)

    def _head(self) -> str:
        """Return the commit that the branch is at."""
        branch = self._options.branch
        info = self._client.ask(f"show its branch {branch}", self._api.model_info, self._name, revision=branch)
        return self._client.require_commit(info.sha, self._name)

    def _plan(self, parent: str) -> PushPlan:
        remote = self._client.files(self._name, parent)
        foreign = self._package.foreign(remote)
        delete = [path for path in foreign if self._options.prune and not path.startswith(RESULTS)]
        stays = [path for path in foreign if path not in delete]
        tagged = self._tagged() if self._tag else ""
        add = self._package.differing(remote)
        return PushPlan(parent, tuple(add), tuple(delete), tuple(stays), self._tag, tagged)

    def _tagged(self) -> str:
        """Return the commit that the tag is at; empty: there is no such tag.

        Raises:
            NotPushedError: it is at other files than the package's.
        """
        refs = self._client.ask("list the tags", self._api.list_repo_refs, self._name)
        target = next((one.target_commit for one in refs.tags if one.name == self._tag), None)
        if target is None:
            return ""
        commit = self._client.require_commit(target, self._name)
        remote = self._client.files(self._name, commit)
        if self._package.differing(remote) or self._package.foreign(remote):
            raise NotPushedError(
                f"the tag {self._tag} is at commit {commit}, whose files are not this package's",
                where=self._name,
                hint="Release a new version, or give another name with --tag, or --no-tag.",
            )
        return commit

    def _commit(self, plan: PushPlan) -> tuple[str, int | None]:
        """Send what is new in one commit; return its name, and the number of the pull request if it is one."""
        if not plan.add and not plan.delete:
            self._say(f"Nothing is new: {self._name} holds these files at commit {plan.parent}.")
            return plan.parent, None
        try:
            made = self._client.ask("take the commit", self._send, plan)
        except HubRefusedError as error:
            if error.status != 412:
                raise
            hint = "Look at what came in, and push again: nothing that has arrived is sent again."
            what = f"another commit came to {self._options.branch} meanwhile; nothing of this one is there"
            raise NotPushedError(what, where=self._name, hint=hint) from None
        commit = self._client.require_commit(made.oid, self._name)
        self._say(f"One commit: {len(plan.add)} files added or changed, {len(plan.delete)} deleted.")
        number = _PULL_REQUEST.search(made.pr_url or "")
        if self._options.pull_request and number is None:
            raise RemoteDiffersError("the hub took the commit and names no pull request", where=self._name)
        return commit, int(number[1]) if number else None

    def _send(self, plan: PushPlan) -> CommitInfo:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        package, about = self._package, self._package.summary
        new = [CommitOperationAdd(path, str(package.folder / path)) for path in sorted(package.digests)]
        gone = [CommitOperationDelete(path) for path in plan.delete]
        return self._api.create_commit(
            self._name,
            [*new, *gone],
            commit_message=f"{about.name} {about.version}",
            commit_description=f"sha256 of {SUMS}: {package.digests[SUMS]}\nSigned with {package.by}",
            revision=self._options.branch,
            parent_commit=plan.parent,
            create_pr=self._options.pull_request,
        )

    def _compare(self, commit: str) -> None:
        """Compare what the hub holds with the package, by digests.

        Raises:
            RemoteDiffersError: they are not the same.
        """
        remote = self._client.files(self._name, commit)
        wrong = [*self._package.differing(remote), *self._package.foreign(remote)]
        if wrong:
            raise RemoteDiffersError(
                f"at commit {commit} the hub holds something else than the package: {listed(wrong)}",
                where=self._name,
                hint="No tag was set. Push again; if it stays so, tell the hub.",
            )
        self._say(f"Compared: the hub holds all {len(self._package.digests)} files, by their digests.")

    def _settle(self) -> None:
        """Set who may see and download; what was not asked for stays as it is."""
        options = self._options
        if options.gated is None and not options.public:
            return
        private = False if options.public else None
        change = self._api.update_repo_settings
        self._client.ask("change the settings", change, self._name, gated=options.gated, private=private)

    def _set_tag(self, plan: PushPlan, commit: str) -> str:
        """Tag the commit, and return the tag's; a tag that is there already has to be at the same files."""
        if plan.tagged:
            return plan.tagged
        try:
            self._client.ask("set the tag", self._api.create_tag, self._name, tag=plan.tag, revision=commit)
        except HubRefusedError as error:
            if error.status != 409:
                raise
            return self._tagged()
        return commit


def _checked(options: PushOptions, version: str) -> str:
    """Return the name of the tag; empty: none. All names are checked.

    Raises:
        UsageError: one is malformed.
    """
    if not _REPOSITORY.fullmatch(options.repository):
        hint = "Write ORG/NAME: letters, digits, - _ and dots, at most 96 characters each."
        raise UsageError(f"{options.repository!r} is no name of a repository", hint=hint)
    if not _REF.fullmatch(options.branch):
        raise UsageError(f"{options.branch!r} is no name of a branch", where="--revision", hint="Such as main.")
    if options.pull_request and options.branch != MAIN:
        raise UsageError("--pr and --revision exclude each other", hint="A pull request is made against main.")
    if options.pull_request and options.tag:
        raise UsageError("--pr and --tag exclude each other", hint="Push again after merging: that sets the tag.")
    if options.tag is None or options.pull_request:
        return ""
    tag = options.tag or f"v{version}"
    if not _REF.fullmatch(tag):
        raise UsageError(f"{tag!r} is no name of a tag", where="--tag", hint="Such as v1.0.0; or give --no-tag.")
    return tag
