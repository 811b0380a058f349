"""Safeguards: what travels beside the weights and binds those who use the model. One folder a safeguard.

The set is closed on purpose: a reader must be able to judge a package without running anybody's code
(``docs/explanation/architecture.md``).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from publisher.api.membranes import Transport
from publisher.model.digest import sha256_json
from publisher.safeguards.base import Attachment, Safeguard
from publisher.safeguards.freeze_mask.safeguard import FreezeMaskSafeguard
from publisher.safeguards.membranes.safeguard import MembraneSafeguard

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ALL: Final[tuple[Safeguard, ...]] = (MembraneSafeguard(), FreezeMaskSafeguard())
"""Every safeguard that a package can have."""


def attached_digest(folder: Path) -> str:
    """Return the sha256 that names all safeguards in a folder that images depend on; empty: there are none."""
    digests = [digest for one in ALL if (digest := one.digest(folder))]
    return digests[0] if len(digests) == 1 else sha256_json(digests) if digests else ""


def attach(pipeline: DiffusionPipeline, folder: Path, transport: Transport | None = None) -> tuple[Attachment, ...]:
    """Put every safeguard on a pipeline that has something to put there; see :meth:`Safeguard.attach`."""
    found = (one.attach(pipeline, folder, transport) for one in ALL)
    return tuple(one for one in found if one)
