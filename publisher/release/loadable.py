"""Load a finished package as its users do, before it is signed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api.loading import quiet
from publisher.errors import PublisherError
from publisher.loading import load

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def require_loadable(folder: Path) -> None:
    """Load a package by plain diffusers and by ``publisher.load``, and compare every weight of the two.

    Libraries that do not find a weight may fill it at random and only warn: then the two differ.

    Raises:
        PublisherError: one of them fails, or they differ.
    """
    plain = _weights("DiffusionPipeline.from_pretrained", folder, lambda: _plain(folder))
    served = _weights("publisher.load", folder, lambda: load(folder, verify_key=None, device="cpu", dtype="float32"))
    different = sorted(name for name in plain | served if plain.get(name) != served.get(name))
    if different:
        raise PublisherError(
            f"{len(different)} weights of the finished package are others at each loading, the first is {different[0]}",
            where=str(folder),
            hint="Nothing was signed. The libraries find no such tensor in the file, and fill it at random: save the "
            "base model again with the versions of diffusers and transformers that are installed.",
        )


def _plain(folder: Path) -> DiffusionPipeline:
    import diffusers

    with quiet():
        return diffusers.DiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)


def _weights(how: str, folder: Path, make: Callable[[], DiffusionPipeline]) -> dict[str, str]:
    """Return the digest of each weight of all networks, as float32, by component and name."""
    try:
        pipeline = make()
    except Exception as error:  # whatever the libraries raise at a file that they do not understand
        raise PublisherError(
            f"the finished package cannot be loaded by {how}: {error}",
            where=str(folder),
            hint="Nothing was signed. Does the base model load this way? Run again with --debug for the traceback.",
        ) from error
    return {
        f"{name}/{key}": hashlib.sha256(value.detach().float().contiguous().numpy().data).hexdigest()
        for name, part in sorted(pipeline.components.items())
        if hasattr(part, "state_dict")
        for key, value in part.state_dict().items()
    }
