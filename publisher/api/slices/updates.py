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
from publisher.api.header import HeaderError, read_header
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
    _require_shapes({name: tuple(one.shape) for name, one in parts.items()}, stage, layers, tensors, where)
    found = {}
    for layer in layers:
        down, up = parts[f"{layer}.A"], parts[f"{layer}.B"]
        if not (down.isfinite().all() and up.isfinite().all()):
            raise ModelError(f"has NaN or infinity in the layer {layer}", where=where)
        found[layer] = LayerUpdate(down, up, float(stage.scale))
    return found


def require_fit(path: Path, stage: Stage, layers: Sequence[str], tensors: Mapping[str, TensorInfo]) -> None:
    """Make sure that a stage fits the model, by the header of its file alone. Torch-free.

    Args:
        path: file of the stage.
        stage: as the ledger has it.
        layers: of its group.
        tensors: of the adapted component of the base model.

    Raises:
        ModelError: the file cannot be read, or is of other layers, ranks or shapes.
    """
    where = f"stage {stage.id}, {path}"
    try:
        header = read_header(path)
    except (OSError, HeaderError) as error:
        raise ModelError(f"is no safetensors file: {error}", where=where, hint=RETRAIN) from error
    _require_shapes({name: info.shape for name, info in header.items()}, stage, layers, tensors, where)


def _require_shapes(
    shapes: Mapping[str, tuple[int, ...]],
    stage: Stage,
    layers: Sequence[str],
    tensors: Mapping[str, TensorInfo],
    where: str,
) -> None:
    names = {f"{layer}.{part}" for layer in layers for part in "AB"}
    if other := sorted(names ^ shapes.keys()):
        raise ModelError(f"holds other layers than its group has, such as {other[0]}", where=where)
    for layer in layers:
        info = tensors.get(f"{layer}.weight")
        if info is None or len(info.shape) < 2:
            raise ModelError(f"adapts the layer {layer}, of which the model has no matrix", where=where)
        wanted = (stage.rank, info.parameters // info.shape[0]), (info.shape[0], stage.rank)
        found = shapes[f"{layer}.A"], shapes[f"{layer}.B"]
        if found != wanted:
            what = f"has matrices of {found[0]} and {found[1]} for the layer {layer}"
            asked = f"its rank {stage.rank} and the model's weight of {info.shape} ask for {wanted[0]} and {wanted[1]}"
            raise ModelError(f"{what}; {asked}", where=where)


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
