"""Names that a hub gives to files on this machine: its client keeps them by headers of the hub's answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from publisher.errors import HostileHubError

HEADERS = ("ETag", "X-Linked-Etag", "X-Repo-Commit")
"""Headers that become names of files and folders in the cache."""


@contextmanager
def plain_names(repository: str) -> Iterator[None]:
    """Refuse, inside this block, answers that would make ``huggingface_hub`` write outside of its cache.

    Args:
        repository: for the error.

    Raises:
        HostileHubError: a header is no plain name.
    """
    from huggingface_hub import get_session

    def check(response: Any) -> None:
        if response.request.method != "HEAD":
            return
        for header in HEADERS:
            name = response.headers.get(header, "").lstrip("W/").strip('"')
            if "/" in name or "\\" in name or name in (".", ".."):
                raise HostileHubError(f"the hub's header {header} is no name for a file", where=repository)

    session = get_session()
    before = session.event_hooks
    session.event_hooks = {**before, "response": [*before.get("response", []), check]}
    try:
        yield
    finally:
        session.event_hooks = before
