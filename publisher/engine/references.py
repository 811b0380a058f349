"""Reference images for steps: which files and which model they come from, and their part of a result's identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Anatomy, Concept, References, Sampling, Scope
from publisher.errors import UsageError
from publisher.model.digest import sha256_file
from publisher.runtime.references import VERSION, ReferenceSettings, Wanted, reference_sets

if TYPE_CHECKING:
    import torch

Source = Callable[[Mapping[str, int]], dict[str, References]]
"""Concept's id -> how many, to its images."""


@dataclass(frozen=True)
class ReferencePlan:
    """Origin of a step's reference images."""

    files: Mapping[str, tuple[Path, ...]]
    """Concept's id -> its image files; empty: the base model generates."""
    steps: int
    """Sampling steps of what is generated."""
    guidance: float
    """Classifier-free guidance scale of what is generated."""

    @classmethod
    def of(cls, scope: Scope, sampling: Sampling, relative_to: Path) -> ReferencePlan:
        """Plan for a step's concepts, whose image files are relative to the manifest's folder."""
        concepts = (*scope.concepts, *scope.keep)
        files = {concept.id: tuple(relative_to / name for name in concept.images) for concept in concepts}
        return cls(files, sampling.steps, sampling.guidance)

    def identity(self, base: str) -> dict[str, Any]:
        """Return what the images depend on, as JSON.

        Args:
            base: digest of the base model.
        """
        files = {name: [sha256_file(path) for path in paths] for name, paths in self.files.items() if paths}
        generated = {"steps": self.steps, "guidance": self.guidance}
        return {"version": VERSION, "base": base, "generated": generated, "files": files}

    def source(self, scope: Scope, base: Path, anatomy: Anatomy, device: torch.device, dtype: torch.dtype) -> Source:
        """Return the function that a running step calls for the publisher's half of its images.

        Args:
            scope: the step's.
            base: folder of the base model.
            anatomy: parts of the base model.
            device: where to generate.
            dtype: of the networks that generate.
        """
        reference_settings = ReferenceSettings(base, anatomy, device, dtype, self.steps, self.guidance)

        def references(counts: Mapping[str, int]) -> dict[str, References]:
            wanted = [Wanted(_known(scope, name), count, self.files[name]) for name, count in counts.items()]
            return dict(zip(counts, reference_sets(reference_settings, wanted, "publisher"), strict=True))

        return references


def _known(scope: Scope, name: str) -> Concept:
    try:
        return scope.concept(name)
    except KeyError as error:
        raise UsageError(f"there is no concept {name!r} to have reference images of") from error
