"""The other parts of a model in a one-file checkpoint: its autoencoder and text encoders, under the file's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import TensorInfo
from publisher.api.ldm_names import Places
from publisher.safeguards.freeze_mask.audit.comparing import Weights, tally
from publisher.safeguards.freeze_mask.audit.records import ComponentAudit

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PlacedWeights(Weights):
    """Tensors of a component as a one-file checkpoint keeps them, read as the component has them."""

    places: Places

    @property
    def stored(self) -> frozenset[str]:
        """Names in the file that were read."""
        return frozenset(self.places[name].name for name in self.tensors)

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor to the CPU, in its stored dtype: of a fused one its own piece."""
        from safetensors import safe_open

        info, place = self.tensors[name], self.places[name]
        with safe_open(self.files[info.file], framework="pt") as file:
            if place.pieces == 1:
                tensor: torch.Tensor = file.get_tensor(place.name)
            else:
                part, rows = file.get_slice(place.name), info.shape[0]
                tensor = part[place.piece * rows : (place.piece + 1) * rows]
        if place.form == "transposed":
            return tensor.T.contiguous()
        return tensor.reshape(info.shape)


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
            whole = place.shape(own)
            fitting = (whole[0] * place.pieces, *whole[1:]) if whole else whole
            matrix = place.form == "convolution" and info.shape == own
            found[name] = replace(info, shape=own if matrix or info.shape == fitting else info.shape)
    return PlacedWeights(found, {info.file: root / info.file for info in found.values()}, places)


def compare_part(name: str, published: Weights, found: PlacedWeights) -> ComponentAudit:
    """Say whether a component in a file is the published one; its other names are no change."""
    kinds = tally(published, found, sorted(published.tensors))
    changed = kinds["changed"] + kinds["missing"]
    return ComponentAudit(
        name=name, state="changed" if changed else "cast" if kinds["cast"] else "same", tensors_changed=changed
    )
