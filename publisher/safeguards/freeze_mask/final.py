"""The freeze mask of a release against its final weights: a mask of other weights must not be shipped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import ValidationError

from publisher.api.freeze_mask import FILE, FreezeMask, FrozenTensor, architecture_sha256, digest, part
from publisher.errors import PluginError, UsageError
from publisher.model.state import State
from publisher.safeguards.base import Made
from publisher.strict_json import JsonError, strict_object


def mask_of(results: Sequence[Made], final: State) -> FreezeMask | None:
    """Return the mask that a step made, if it holds for the final weights; None: no step made one.

    Args:
        results: what the steps left, in their order.
        final: the hardened model.

    Raises:
        UsageError: a later step changed something that is frozen.
        PluginError: the mask cannot be read, or was never right: it is not for this model.
    """
    place = next((place for place, result in enumerate(results) if FILE in result.artifacts), None)
    if place is None:
        return None
    made, *later = results[place:]
    step = made.record.id
    try:
        mask = FreezeMask.parse(strict_object(made.artifacts[FILE]))
    except (JsonError, ValidationError) as error:
        raise PluginError(f"step {step!r} made a freeze mask that cannot be read: {error}", where=FILE) from error
    _require_fit(mask, final, step)
    stale = [tensor.name for tensor in mask.frozen if _differs(tensor, mask.component, final)]
    if stale:
        raise _stale(mask, stale, step, later)
    return mask


def _require_fit(mask: FreezeMask, model: State, step: str) -> None:
    if mask.component not in model.components:
        raise PluginError(f"step {step!r} made a freeze mask for {mask.component!r}, which the model lacks", where=FILE)
    shapes = {name: info.shape for name, info in model.tensors(mask.component).items()}
    if mask.architecture != architecture_sha256(shapes):
        raise PluginError(
            f"step {step!r} made a freeze mask for another architecture than that of {mask.component!r}", where=FILE
        )
    for tensor in mask.frozen:
        if shapes.get(tensor.name) != tensor.shape:
            raise PluginError(f"step {step!r} froze {tensor.name}, which the model does not have", where=FILE)


def _differs(frozen: FrozenTensor, component: str, model: State) -> bool:
    """Compare in float32, which holds every value of the two shorter types."""
    return digest(part(model.read(component, frozen.name), frozen.rows), "F32") != frozen.sha256["F32"]


def _stale(mask: FreezeMask, names: list[str], step: str, later: Sequence[Made]) -> UsageError | PluginError:
    for name in names:
        for culprit in _changed_by(mask.component, name, later):
            return UsageError(
                f"step {culprit!r} changed {name}, which the freeze mask of {step!r} freezes"
                + (f" (and {len(names) - 1} more tensors)" if len(names) > 1 else ""),
                where=FILE,
                hint=f"A mask is good for the weights that it was made for: put {step!r} behind {culprit!r}.",
            )
    return PluginError(f"step {step!r} made a freeze mask with wrong digests, such as that of {names[0]}", where=FILE)


def _changed_by(component: str, name: str, later: Sequence[Made]) -> Iterator[str]:
    for result in later:
        if name in result.delta.tensors.get(component, {}):
            yield result.record.id
