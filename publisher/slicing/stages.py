"""Which stages there are: what each of them sees, where it stands, and which layers it adapts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.api import Model
from publisher.api.slices import Order
from publisher.errors import UsageError
from publisher.slicing.recipe import SliceTraining


@dataclass(frozen=True)
class StagePlace:
    """One stage to train."""

    id: str
    """Name of it."""
    order: int
    """Number of its order; 0: it is independent."""
    position: int
    """Place in its order, from 1."""
    group: int
    """Number of its group of layers."""
    new: str
    """Id of the slice that it sees first."""
    earlier: tuple[str, ...]
    """Ids of the slices that the stages before it saw, the first one first."""
    before: tuple[str, ...]
    """Ids of the stages that it builds on, the first one first."""

    @property
    def saw(self) -> tuple[str, ...]:
        """All slices that it sees, sorted."""
        return tuple(sorted((*self.earlier, self.new)))


def orders_of(training: SliceTraining) -> tuple[Order, ...]:
    """Return the orders of a sequence: rotations without what was withdrawn. None where stages are independent.

    Of orders that a withdrawal makes equal the one stays whose stages before the withdrawn slice are the most.
    """
    ids = [entry.id for entry in training.data]
    count = training.orders if training.mode == "sequence" else 0
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    for number in range(count):
        order = (*ids[number:], *ids[:number])
        left = tuple(name for name in order if name not in training.withdrawn)
        intact = next((place for place, name in enumerate(order) if name in training.withdrawn), len(order))
        found[left] = max(found.get(left, (-1, 0)), (intact, -number))
    kept = sorted((-number, left) for left, (_, number) in found.items())
    return tuple(Order(id=number + 1, slices=left) for number, left in kept)


def stages_of(training: SliceTraining) -> Iterator[StagePlace]:
    """Yield all stages; those that one builds on come before it."""
    if training.mode == "independent":
        for number, entry in enumerate(training.data):
            if entry.id in training.withdrawn:
                continue
            yield StagePlace(entry.id, 0, number + 1, 0, entry.id, (), ())
    for order in orders_of(training):
        names: list[str] = []
        for number, new in enumerate(order.slices):
            name = f"o{order.id}-{number + 1}"
            yield StagePlace(name, order.id, number + 1, number, new, order.slices[:number], tuple(names))
            names.append(name)


def groups_of(training: SliceTraining, model: Model, layers: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Split the layers: all in one group for independent stages, else one group for each place of an order.

    Groups are disjoint and about equally large, and each has layers of all depths: block by block, in the order of the
    network, the layers go to the group that is smallest so far. Groups from the output inwards, as S3T has them for
    classifiers, learn badly in a denoiser. Withdrawn slices count: the layers of the other places stay what they were.

    Args:
        training: the file.
        model: the base model.
        layers: names of all layers that are adapted, in the order of the network.

    Raises:
        UsageError: there are fewer blocks than places.
    """
    if training.mode == "independent":
        return (tuple(layers),)
    tensors = model.tensors(model.anatomy.denoiser)
    blocks: dict[str, list[str]] = {}
    for layer in layers:
        blocks.setdefault(_block(layer), []).append(layer)
    count = len(training.data)
    if len(blocks) < count:
        what = f"{count} slices in one order need as many groups of layers, and the model has {len(blocks)} blocks"
        raise UsageError(what, where="mode", hint="Use 'mode: independent', or put slices together.")
    sizes, groups = [0] * count, [[] for _ in range(count)]  # type: ignore[var-annotated]
    for inside in blocks.values():
        smallest = min(range(count), key=lambda number: (sizes[number], number))
        groups[smallest] += inside
        sizes[smallest] += sum(tensors[f"{layer}.weight"].parameters for layer in inside)
    return tuple(tuple(sorted(group)) for group in groups)


def _block(layer: str) -> str:
    """Return the name of the block, such as an attention or a residual layer, that a layer belongs to."""
    return layer.removesuffix(".0").rpartition(".")[0]


def layers_of(model: Model, *, convolutions: bool) -> list[str]:
    """Return the layers that adapters go on: linear ones and, where asked for, convolutions that the family names.

    Args:
        model: the base model.
        convolutions: whether they are adapted too.

    Raises:
        UsageError: the family names none.
    """
    anatomy = model.anatomy
    ends = [f".{name}.weight" for name in (*anatomy.lora_targets, *(anatomy.conv_targets if convolutions else ()))]
    tensors: Mapping[str, object] = model.tensors(anatomy.denoiser)
    found = [name.removesuffix(".weight") for name in tensors if name.endswith(tuple(ends))] if ends else []
    if not found:
        raise UsageError(f"the family {anatomy.family} names no layers that adapters sit on", where="model")
    return found
