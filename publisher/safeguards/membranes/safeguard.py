"""Membranes as a safeguard: what the rooms of a release ask of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from publisher.api import ReleaseReport
from publisher.api.membranes import FOLDER, INDEX, MembraneIndex, Transport
from publisher.codes import Finding
from publisher.model.digest import sha256_file, sha256_list
from publisher.safeguards.base import Contents, Safeguard
from publisher.safeguards.membranes.card import how_to_load
from publisher.safeguards.membranes.findings import check_membranes
from publisher.strict_json import JsonError, strict_object
from publisher.text import printable

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from publisher.safeguards.membranes.attached import Attached


class MembraneSafeguard(Safeguard):
    """Side branches of the denoiser, which a pipeline attaches and a prompt opens."""

    file = INDEX
    conflict = (
        "{earlier!r} makes membranes for weights that {later!r} changes afterwards: they were trained on others. Put"
        " {earlier!r} behind {later!r}."
    )

    def owns(self, artifact: str) -> bool:
        """Return whether a file lies in their folder."""
        return artifact.startswith(f"{FOLDER}/")

    def carried(self, document: Mapping[str, Any]) -> str:
        """Name the concepts that the index names."""
        entries = document.get("entries")
        named = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
        concepts = [str(entry.get("concept")) for entry in named]
        return f"membranes for {printable(', '.join(concepts)) or 'unknown concepts'}"

    def findings(self, document: Any, contents: Contents) -> Iterator[Finding]:
        """Compare the index with the files beside it."""
        yield from check_membranes(document, contents.digests, contents.headers)

    def loading(self, report: ReleaseReport, folder: str) -> str:
        """Return how to load the package with them, and what its weights do alone."""
        return how_to_load(report, folder)

    def digest(self, folder: Path) -> str:
        """Hash all files of membranes that open by the prompt.

        Those that are merged into the weights already change nothing more. An index that cannot be read counts as one
        that attaches: attaching then fails, and with it the checks.
        """
        if not _opens_by_prompt(folder / INDEX):
            return ""
        held = [path for path in (folder / FOLDER).rglob("*") if path.is_file()]
        return sha256_list({path.relative_to(folder).as_posix(): sha256_file(path) for path in held})

    def attach(self, pipeline: DiffusionPipeline, folder: Path, transport: Transport | None = None) -> Attached | None:
        """Attach those that open by the prompt."""
        from publisher.safeguards.membranes.attached import attach
        from publisher.safeguards.membranes.released import read_release

        released = read_release(folder)
        return attach(pipeline, released, transport) if released and released.attachable else None


def _opens_by_prompt(index: Path) -> bool:
    if not index.is_file():
        return False
    try:
        return MembraneIndex.parse(strict_object(index.read_bytes())).mode == "bundle"
    except (JsonError, ValidationError, OSError):
        return True
