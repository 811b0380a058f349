"""What can go wrong with a hub, and what it means for the answer."""

from __future__ import annotations

from publisher.errors import ExitCode, PublisherError, UsageError


class HubUnreachableError(PublisherError):
    """The hub, or the way to it, does not work now."""

    status: int | None = None
    """Status of its answer; None: there was none."""


class HubRefusedError(UsageError):
    """The hub does not let this user do that, or does not know what was named."""

    status: int | None = None
    """Status of its answer; None: the library has refused to ask."""


class NotPushedError(PublisherError):
    """The answer is no: the repository is not what the package was to be put into."""

    exit_code = ExitCode.REFUSED


class RemoteDiffersError(PublisherError):
    """What the hub holds after the commit is not the package."""
