"""Parts of a model in a one-file checkpoint under the file's names, read as the published parts have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import TensorInfo
from publisher.api.file_places import Places
from publisher.safeguards.freeze_mask.audit.comparing import Weights, tally
from publisher.safeguards.freeze_mask.audit.records import ComponentAudit

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PlacedWeights(Weights):
    """Tensors of a component as a one-file checkpoint keeps them, read as the component has them.

    What has no place is read as it is.
    """

    places: Places

    @property
    def stored(self) -> frozenset[str]:
        """Names in the file that were read."""
        return frozenset(info.name for info in self.tensors.values())

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor to the CPU, in its stored dtype: of a fused one its own rows."""
        from safetensors import safe_open

        info, place = self.tensors[name], self.places.get(name)
        if place is None:
            return super().read(name)
        with safe_open(self.files[info.file], framework="pt") as file:
            if place.rows is None:
                tensor: torch.Tensor = file.get_tensor(place.name)
            else:
                tensor = file.get_slice(place.name)[place.start : place.start + info.shape[0]]
        if place.form == "transposed":
            return tensor.T.contiguous()
        return halves_swapped(tensor) if place.form == "swapped" else tensor.reshape(info.shape)


def halves_swapped(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor whose first axis has its second half first, in any dtype."""
    import torch

    half, found = len(tensor) // 2, torch.empty_like(tensor)
    found[:half], found[half:] = tensor[half:], tensor[:half]
    return found


def placed(places: Places, published: Weights, headers: Mapping[str, TensorInfo], root: Path) -> PlacedWeights:
    """Return what of a component is in a file, in the component's shapes where it fits.

    Args:
        places: of the component's tensors.
        published: the component in the package.
        headers: of the file, by its names.
        root: of the upload.
    """
    found = {}
    for name, place in places.items():
        info = headers.get(place.name)
        if info is not None:
            own = published.tensors[name].shape
            matrix = place.form == "convolution" and info.shape == own
            found[name] = replace(info, shape=own if matrix or info.shape == place.shape(own) else info.shape)
    return PlacedWeights(found, {info.file: root / info.file for info in found.values()}, places)


def compare_part(name: str, published: Weights, found: PlacedWeights) -> ComponentAudit:
    """Say whether a component in a file is the published one; its other names are no change."""
    kinds = tally(published, found, sorted(published.tensors))
    changed = kinds["changed"] + kinds["missing"]
    return ComponentAudit(
        name=name, state="changed" if changed else "cast" if kinds["cast"] else "same", tensors_changed=changed
    )
