"""What a stage adds to each layer, and the exact sum: equal bytes on every machine.

    acc = float64(W0)
    for stage in canonical order: for j in 0 .. rank-1:  acc = acc + (scale B[:, j]) A[j, :]      two operations
    W = round(acc), once, to the dtype of the base model

Taking an adapter out of merged weights does not give the base model back: rounding cannot be undone. So what may stay
is always composed anew from the base model's own weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api.artifacts import safetensors_bytes
from publisher.api.models import TensorInfo
from publisher.api.slices.ledger import Ledger, Stage
from publisher.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

RETRAIN = "Take it from a copy of the folder, or train the stage again: equal inputs give equal bytes."


@dataclass(frozen=True)
class LayerUpdate:
    """What one stage adds to one layer."""

    down: Tensor
    """``(rank, n)`` float32, A."""
    up: Tensor
    """``(m, rank)`` float32, B."""
    scale: float
    """Factor of B A."""


def update_bytes(updates: Mapping[str, LayerUpdate]) -> bytes:
    """Return the file of a stage: ``<layer>.A`` and ``<layer>.B``; equal matrices give equal bytes."""
    tensors = {f"{layer}.A": update.down for layer, update in updates.items()}
    return safetensors_bytes(tensors | {f"{layer}.B": update.up for layer, update in updates.items()})


def read_updates(
    folder: Path, ledger: Ledger, stages: Iterable[Stage], tensors: Mapping[str, TensorInfo]
) -> dict[str, list[LayerUpdate]]:
    """Read stages, in their order, and check that they are what the ledger says and fit the model.

    Args:
        folder: in which the ledger lies.
        ledger: that names them.
        stages: to read.
        tensors: of the adapted component of the base model.

    Returns:
        Layer -> what each of the stages adds to it.

    Raises:
        ModelError: a file is missing, changed, of other layers or shapes, or holds NaN or infinity.
    """
    found: dict[str, list[LayerUpdate]] = {}
    for stage in stages:
        for layer, update in read_stage(folder / stage.file, stage, ledger.groups[stage.group], tensors).items():
            found.setdefault(layer, []).append(update)
    return found


def read_stage(
    path: Path, stage: Stage, layers: Sequence[str], tensors: Mapping[str, TensorInfo]
) -> dict[str, LayerUpdate]:
    """Read one stage and check that it is what the ledger says and fits the model.

    Args:
        path: file of the stage.
        stage: as the ledger has it.
        layers: of its group.
        tensors: of the adapted component of the base model.

    Returns:
        Layer -> what the stage adds to it.

    Raises:
        ModelError: the file is missing, changed, of other layers or shapes, or holds NaN or infinity.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    where = f"stage {stage.id}, {path}"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot be read: {error.strerror}", where=where, hint=RETRAIN) from error
    if hashlib.sha256(data).hexdigest() != stage.sha256:
        raise ModelError("is not the file that the ledger names: its digest is another", where=where, hint=RETRAIN)
    try:
        parts = load(data)
    except SafetensorError as error:
        raise ModelError(f"is no safetensors file: {error}", where=where) from error
    if set(parts) != {f"{layer}.{part}" for layer in layers for part in "AB"}:
        raise ModelError("holds other layers than its group has", where=where)
    found = {}
    for layer in layers:
        down, up = parts[f"{layer}.A"], parts[f"{layer}.B"]
        info = tensors.get(f"{layer}.weight")
        if info is None:
            raise ModelError(f"adapts the layer {layer}, which the model does not have", where=where)
        rows, columns = info.shape[0], info.parameters // info.shape[0]
        if tuple(down.shape) != (stage.rank, columns) or tuple(up.shape) != (rows, stage.rank):
            raise ModelError(f"has a rank or shape that does not fit the layer {layer}", where=where)
        if not (down.isfinite().all() and up.isfinite().all()):
            raise ModelError(f"has NaN or infinity in the layer {layer}", where=where)
        found[layer] = LayerUpdate(down, up, float(stage.scale))
    return found


def recompose(weight: Tensor, updates: Iterable[LayerUpdate]) -> Tensor:
    """Return a layer's weight with what stages add to it: summed in float64 in this order, rounded once.

    Args:
        weight: ``(m, n)`` or ``(m, n, h, w)``, of the base model itself.
        updates: in canonical order.
    """
    import torch

    total = weight.double().flatten(1)
    for update in updates:
        down, up = update.down.double(), update.up.double() * update.scale
        for index in range(len(down)):
            total = total + torch.mul(up[:, index, None], down[None, index])
    return total.reshape(weight.shape).to(weight.dtype)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal in type, shape and every bit: 0 and -0 are not."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(*(tensor.flatten().view(torch.uint8) for tensor in (one, other)))
