"""The attack ``take-out-slices``: whoever has the base model takes the stages out again, and sees what is left.

A tensor that is the base model's with the stages that may stay, to the last bit, becomes the base model's. Any other
one stays. If the release holds an update of anything else, images of what is left are not the base model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import (
    Access,
    Anatomy,
    Concept,
    ImageRequest,
    ModelError,
    Params,
    Sampling,
    TensorInfo,
    WeightAttack,
)
from publisher.api.header import read_header
from publisher.api.slices import LEDGER, LayerUpdate, Ledger, Remains, read_updates, recompose

if TYPE_CHECKING:
    import torch

FOLDER = Path("release") / "slices"


class TakeOutParams(Params):
    """What was withdrawn."""

    deleted: tuple[str, ...] = ()
    """Ids of the withdrawn slices: stages that saw one of them are not taken out."""


class TakeOutSlices(WeightAttack[TakeOutParams]):
    """Take every stage that may stay out of the weights: what is left should be the base model."""

    name = "take-out-slices"
    version = "1"
    summary = "the stages that may stay taken out of the weights: the base model should be left"
    access = Access.BASE

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._updates: Mapping[str, Sequence[LayerUpdate]] = {}

    def open(self, params: TakeOutParams, folder: Path) -> None:
        """Read ledger and stages of the package.

        Raises:
            ModelError: they are not there, or not what the ledger says.
            UsageError: there is no such slice.
        """
        place = folder / FOLDER
        if not (place / LEDGER).is_file():
            raise ModelError("has no ledger of slices", where=str(folder))
        ledger = Ledger.read((place / LEDGER).read_bytes(), f"{FOLDER.as_posix()}/{LEDGER}")
        found = ledger.compose(params.deleted)
        wanted = Remains(deleted=tuple(sorted(params.deleted)), stages=tuple(stage.id for stage in found.stages))
        if Remains.read(place / "deleted.json") != wanted:
            raise ModelError("says that other stages stay than the ledger does", where=str(place / "deleted.json"))
        flat = [one.model_copy(update={"file": Path(one.file).name}) for one in found.stages]
        tensors: dict[str, TensorInfo] = {}
        for path in sorted((folder / ledger.base.component).glob("*.safetensors")):
            tensors |= read_header(path)
        self._updates = read_updates(place, ledger, flat, tensors)
        self._ledger = ledger

    def requests(self, params: TakeOutParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return the concept's prompts in turn, each image with a seed of its own."""
        prompts = tuple(dict.fromkeys(concept.prompts))
        return tuple(
            ImageRequest(
                concept=concept.id,
                prompt=prompts[index % len(prompts)],
                seed=sampling.seed + index,
                steps=sampling.steps,
                guidance=sampling.guidance,
            )
            for index in range(sampling.images if prompts else 0)
        )

    def alter(
        self,
        params: TakeOutParams,  # noqa: ARG002
        anatomy: Anatomy,  # noqa: ARG002
        component: str,
        name: str,
        hardened: torch.Tensor,
        base: torch.Tensor,
    ) -> torch.Tensor:
        """Return the base model's tensor where the hardened one is exactly it with the stages that stay."""
        import torch

        mine = self._ledger is not None and component == self._ledger.base.component
        updates = self._updates.get(name.removesuffix(".weight"), ()) if mine else ()
        same = bool(updates) and torch.equal(recompose(base, updates), hardened)
        return base if same else hardened
