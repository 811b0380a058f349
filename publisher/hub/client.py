"""The door to ``huggingface_hub``: its errors become ours, without tokens, and what a hub lists is checked first."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from publisher.errors import HostileHubError, PublisherError
from publisher.hub.errors import HubRefusedError, HubUnreachableError
from publisher.package.layout import MAX_DEPTH, MAX_FILES, MAX_PATH, TOTALS
from publisher.text import printable

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
COMMIT = re.compile(r"[0-9a-f]{40}")
LONGEST = 400
"""Characters of a hub's message that are shown."""
SECRETS = (
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACE_HUB_TOKEN",
    "HF_OIDC_ID_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
)
"""Environment variables that hold what proves to a hub who asks."""
LOG_IN = (
    "Log in with: hf auth login, with a token that may do this; or set HF_TOKEN.\n"
    "In CI a Trusted Publisher needs no stored token: id-token: write, and HF_OIDC_RESOURCE=ORG/NAME."
)
LATER = (
    "Try again later: files that have arrived are not sent again. HF_ENDPOINT names the hub.\n"
    "HF_HUB_OFFLINE=1 keeps to the cache: what it has is found by its commit, not by a tag."
)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """A file that a hub lists."""

    size: int
    """Bytes."""
    sha1: str
    """Of the git object, in hex: of the file where it is small, else of a pointer."""
    sha256: str
    """Of a large file, in hex; empty for a small one."""


class HubClient:
    """A hub's API with what ``huggingface_hub`` finds as endpoint, cache and credentials.

    Args:
        warn: is told what the hub warns of.

    Raises:
        HubRefusedError: the credentials are there, but cannot be exchanged for a token.
    """

    def __init__(self, warn: Callable[[str], None] = lambda _text: None) -> None:
        from huggingface_hub import HfApi, get_token

        self._warn = warn
        self.secrets = {value for name in SECRETS if (value := os.environ.get(name))}
        token = self.ask("get a token from the hub", get_token)
        self.secrets |= {token} if token else set()
        self.api: HfApi = HfApi(token=token, library_name="model-publisher", library_version=version("model-publisher"))

    def ask(self, what: str, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call a function of the library.

        Args:
            what: it does, for the error.
            function: is called.
            args: its arguments.
            options: its named arguments.

        Raises:
            HubRefusedError: the hub says no: not found, no right, or not acceptable.
            HubUnreachableError: it does not answer, or with a failure of its own.
        """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                return function(*args, **options)
            except PublisherError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the hub, the network or the disk says
                raise self.translated(what, error) from None  # the original may quote a token
            finally:
                for one in (one for one in caught if issubclass(one.category, UserWarning)):  # not the library's own
                    self._warn(self.without_secrets(str(one.message)))

    def translated(self, what: str, error: Exception) -> PublisherError:
        """Return an error of the library as one of ours, with its status."""
        from huggingface_hub.errors import HFValidationError

        status = status_of(error) or status_of(error.__cause__)
        said = self.without_secrets(_said(error))
        place = f"the hub did not {what}" + (f" ({status})" if status else "")
        answered = status is not None and 400 <= status < 500 and status not in (408, 429)
        if not answered and not isinstance(error, HFValidationError):
            down = HubUnreachableError(f"{place}: {said}", hint=LATER)
            down.status = status
            return down
        hint = (
            f"Is it there, and may you?\n{LOG_IN}" if status in (401, 403, 404) else "Its answer says what to change."
        )
        refused = HubRefusedError(f"{place}: {said}", hint=hint)
        refused.status = status
        return refused

    def without_secrets(self, text: str) -> str:
        """Return a hub's text on one line, cut, and without any token that was given to it."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, "[not shown]")
        words = " ".join(text.split())
        return printable(words if len(words) <= LONGEST else f"{words[:LONGEST]}...")

    def files(self, repository: str, commit: str) -> dict[str, RemoteFile]:
        """Return the files of a repository at a commit; nothing is fetched.

        Raises:
            HostileHubError: a path that leaves a folder, too many files, or no digests.
            PublisherError: the hub does not give them.
        """
        return self.ask("list the files", self._files, repository, commit)

    def _files(self, repository: str, commit: str) -> dict[str, RemoteFile]:
        found: dict[str, RemoteFile] = {}
        entries = self.api.list_repo_tree(repository, revision=commit, recursive=True)
        for number, entry in enumerate(entries):
            if number >= MAX_FILES:
                raise HostileHubError(f"the hub lists more than {MAX_FILES} files and folders", where=repository)
            path = str(entry.path)
            if problem := unsafe(path):
                raise HostileHubError(
                    f"the hub lists {printable(path[:MAX_PATH])!r}, which {problem}", where=repository
                )
            if hasattr(entry, "blob_id"):
                found[path] = _file(entry, repository)
        if sum(file.size for file in found.values()) > TOTALS["bytes"]:
            raise HostileHubError(f"the hub lists more than {TOTALS['bytes']} bytes", where=repository)
        return found

    def require_commit(self, text: object, repository: str) -> str:
        """Return what a hub calls a commit, if it is one.

        Raises:
            HostileHubError: it is not.
        """
        if not isinstance(text, str) or not COMMIT.fullmatch(text):
            raise HostileHubError("the hub names a commit that is none", where=repository)
        return text


def status_of(error: BaseException | None) -> int | None:
    """Return the status of the hub's answer that an error is about; None: there was no answer."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def unsafe(path: str) -> str:
    """Return why a listed path would be fetched to a wrong place, or an empty text."""
    if len(path) > MAX_PATH or path.count("/") >= MAX_DEPTH:
        return "is too long or too deep"
    if any(part in ("", ".", "..") for part in path.split("/")) or "\\" in path or not path.isprintable():
        return "cannot be the path of a file in a repository"
    return ""


def _file(entry: Any, repository: str) -> RemoteFile:
    sha256 = str(entry.lfs.sha256) if entry.lfs else ""
    if not COMMIT.fullmatch(str(entry.blob_id)) or (entry.lfs and not _DIGEST.fullmatch(sha256)):
        raise HostileHubError("the hub lists a file without its digest", where=repository)
    if not isinstance(entry.size, int) or entry.size < 0:
        raise HostileHubError("the hub lists a file without its size", where=repository)
    return RemoteFile(entry.size, str(entry.blob_id), sha256)


def _said(error: Exception) -> str:
    """Return the hub's own words of an error where there are any, else the library's."""
    words = getattr(error, "server_message", None)
    return words if isinstance(words, str) and words.strip() else str(error).strip() or type(error).__name__
