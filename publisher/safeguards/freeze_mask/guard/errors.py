"""What a guard says no to."""

from __future__ import annotations

from publisher.errors import ExitCode, ModelError, PublisherError


class NotTheModelError(ModelError):
    """A mask does not fit this model: a frozen tensor is missing, has another shape, or is not the published one."""


class MaskBrokenError(PublisherError):
    """A fine-tuning does not honour its mask: something that is frozen changed, or is about to."""

    exit_code = ExitCode.REFUSED
