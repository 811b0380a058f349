"""Requests to batches: equal requests once, in a fixed order, so that a batch can be named and found again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from publisher.api import ImageRequest, MembraneUse
from publisher.runtime.drawing import batch_kind

Wanted = tuple[ImageRequest, MembraneUse]
"""A request, and whether the hardened model draws it with its membranes."""


@dataclass(frozen=True)
class Batch:
    """Requests that are drawn together."""

    requests: tuple[ImageRequest, ...]
    """Without their concepts, which do not matter to what is drawn."""
    private: bool
    """Shows persons or unsafe content: never stored on disk."""
    membranes: tuple[MembraneUse, ...] = ("on",)
    """How the hardened model draws it: with its membranes, without them, or once each."""


def drawing(request: ImageRequest) -> ImageRequest:
    """The request without its concept: equal ones are one drawing."""
    return request.model_copy(update={"concept": ""})


def batches(wanted: Iterable[Wanted], private: Collection[str], size: int) -> tuple[Batch, ...]:
    """Group requests into batches, in the order of their first appearance.

    What is drawn in several ways is grouped the same in each: where nothing differs, not even the last bit may.

    Args:
        wanted: of all checks; equal drawings are taken once.
        private: ids of the concepts whose images must not be stored.
        size: of a batch.
    """
    hidden: dict[ImageRequest, bool] = {}
    membranes: dict[ImageRequest, set[MembraneUse]] = {}
    for request, how in wanted:
        bare = drawing(request)
        hidden[bare] = hidden.get(bare, False) or request.concept in private
        membranes.setdefault(bare, set()).add(how)
    groups: dict[tuple[object, ...], list[ImageRequest]] = {}
    for bare, secret in hidden.items():
        groups.setdefault((*batch_kind(bare), secret, *sorted(membranes[bare])), []).append(bare)
    return tuple(
        Batch(tuple(part), private=hidden[part[0]], membranes=tuple(sorted(membranes[part[0]])))
        for group in groups.values()
        for part in _parts(group, size)
    )


def _parts(group: Sequence[ImageRequest], size: int) -> list[Sequence[ImageRequest]]:
    return [group[start : start + size] for start in range(0, len(group), size)]
