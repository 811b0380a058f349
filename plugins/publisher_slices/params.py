"""Parameters of the step ``slices``."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from publisher.api import Params


class SliceParams(Params):
    """Parameters of ``slices``: which ledger, what was withdrawn, and what the images are tested with."""

    ledger: str = Field(min_length=1)
    """Folder with ``ledger.json`` and ``stages``, as the training left it; seen from the manifest."""
    key: str = ""
    """Public key of who trained, a file seen from the manifest: the ledger must be signed with it. Empty: nobody looks
    who signed the ledger, and the claim says so."""
    deleted: tuple[str, ...] = ()
    """Ids of the slices that were withdrawn, each as a whole."""
    words: dict[str, str] = Field(default_factory=dict)
    """Slice -> id of the concept by whose prompts it is asked for. Of withdrawn slices it is tested that the release
    shows them no more often than the base model; of those that stay, that they are still generated."""
    more_than_base: float = Field(default=0.1, gt=0, le=1)
    """Largest upper bound of the rate of a withdrawn slice above the base model's rate."""
    still_generated: float = Field(default=0.3, gt=0, le=1)
    """Smallest lower bound of the rate of a slice that stays."""
    head_start: float = Field(default=0.05, gt=0, le=1)
    """Largest upper bound of what the release fits a withdrawn slice's pictures better than the base model, as a share
    of the base model's loss. Tested where its concept names pictures (``images``): those of the slice."""
    attack: str = Field(default="full-finetune", min_length=1)
    """Attack by training that the pictures are tested with: its attacker learns some of them, the others are held
    out."""
    attack_params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of that attack, in place of its defaults."""
    last: bool = True
    """Whether no later step changes weights: such a one is then refused, and the release proves that it holds what is
    left and nothing else. Otherwise it promises nothing of that, and the state after this step has to be composed again
    to see it."""

    @field_validator("deleted")
    @classmethod
    def _no_slice_twice(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a slice is named twice")
        return value
