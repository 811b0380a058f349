"""The attack ``take-out-slices``: whoever has the base model takes the stages out again, and sees what is left.

A tensor that is the base model's with the stages that may stay, to the last bit, becomes the base model's. Any other
one stays, and is a fault: no prompt has to be found that shows it. Images of what is left are the base model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

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
    spread_requests,
)
from publisher.api.header import read_header
from publisher.api.model_files import RELEASE
from publisher.api.slices import (
    DELETED,
    FOLDER,
    LEDGER,
    LayerUpdate,
    Ledger,
    Remains,
    read_updates,
    recompose,
    same_bits,
)

if TYPE_CHECKING:
    import torch

PLACE = Path(RELEASE) / FOLDER
"""Of ledger and stages in a package."""
SHOWN = 3
"""Tensors that a fault names."""


class TakeOutParams(Params):
    """What was withdrawn."""

    deleted: tuple[str, ...] = ()
    """Ids of the withdrawn slices: stages that saw one of them are not taken out."""
    images: int = Field(default=40, ge=1)
    """Images of each concept, if the sampling has as many: or one for each of its prompts, if those are more."""


class TakeOutSlices(WeightAttack[TakeOutParams]):
    """Take every stage that may stay out of the weights: what is left should be the base model."""

    name = "take-out-slices"
    version = "2"
    summary = "the stages that may stay taken out of the weights: the base model should be left"
    access = Access.BASE

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._updates: Mapping[str, Sequence[LayerUpdate]] = {}
        self._strange: list[str] = []

    def open(self, params: TakeOutParams, folder: Path) -> None:
        """Read ledger and stages of the package.

        Raises:
            ModelError: they are not there, or not what the ledger says.
            UsageError: there is no such slice.
        """
        place = folder / PLACE
        if not (place / LEDGER).is_file():
            raise ModelError("has no ledger of slices", where=str(folder))
        ledger = Ledger.read((place / LEDGER).read_bytes(), f"{PLACE.as_posix()}/{LEDGER}")
        found = ledger.compose(params.deleted)
        wanted = Remains(deleted=tuple(sorted(params.deleted)), stages=tuple(stage.id for stage in found.stages))
        if Remains.read(place / DELETED) != wanted:
            raise ModelError("says that other stages stay than the ledger does", where=str(place / DELETED))
        flat = [one.model_copy(update={"file": Path(one.file).name}) for one in found.stages]
        tensors: dict[str, TensorInfo] = {}
        for path in sorted((folder / ledger.base.component).glob("*.safetensors")):
            tensors |= read_header(path)
        self._updates = read_updates(place, ledger, flat, tensors)
        self._ledger, self._strange = ledger, []

    def requests(self, params: TakeOutParams, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        """Return the concept's prompts in turn, each image with a seed of its own."""
        count = min(sampling.images, max(params.images, len({*concept.prompts})))
        return spread_requests(concept, concept.prompts, sampling.model_copy(update={"images": count}), first=0)

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
        mine = self._ledger is not None and component == self._ledger.base.component
        updates = self._updates.get(name.removesuffix(".weight"), ()) if mine else ()
        if same_bits(hardened, recompose(base, updates) if updates else base):
            return base
        self._strange.append(f"{component}/{name}")
        return hardened

    def fault(self, params: TakeOutParams) -> str:  # noqa: ARG002
        """Name the tensors that are neither the base model's nor that with the stages that stay."""
        if not self._strange:
            return ""
        more = f" and {len(self._strange) - SHOWN} more" if len(self._strange) > SHOWN else ""
        places = f"{', '.join(self._strange[:SHOWN])}{more}"
        return f"neither the base model's tensor nor that with the stages that stay: {places}"
