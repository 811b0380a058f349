"""That a model was fine-tuned under a mask, written into its configuration.

The flags of a model are lost when it is saved, and so is metadata of a weights file; further keys of ``config.json``
survive loading and saving again. The record is a note, no proof: anybody can write or delete it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from publisher.api.freeze_mask import FreezeMask
from publisher.safeguards.freeze_mask.guard.errors import NotTheModelError

KEY = "_freeze_mask_sha256"
"""Key of ``config.json``; diffusers warns of unknown keys that do not begin with an underscore."""


def sha256(mask: FreezeMask) -> str:
    """Hash the artifact's bytes."""
    return hashlib.sha256(mask.as_file()).hexdigest()


def recorded(model: Any) -> str | None:
    """Return the digest of the mask that a model was trained under, by its configuration; None: it has none."""
    found = getattr(model, "config", {}).get(KEY)
    return found if isinstance(found, str) else None


def record(model: Any, mask: FreezeMask) -> None:
    """Write the mask's digest into a model's configuration.

    Args:
        model: a diffusers model; others have no configuration, and nothing is written.
        mask: it is trained under.

    Raises:
        NotTheModelError: it was trained under another mask before.
    """
    ours, before = sha256(mask), recorded(model)
    if before not in (None, ours):
        raise NotTheModelError(
            f"the model was fine-tuned under another mask (sha256 {before}) than this one ({ours})",
            where="config.json",
            hint="Give the package whose model it was made from.",
        )
    if hasattr(model, "register_to_config"):
        model.register_to_config(**{KEY: ours})


def erase(model: Any) -> None:
    """Take the record back: the mask was not honoured."""
    if recorded(model) is not None:
        model.register_to_config(**{KEY: None})
