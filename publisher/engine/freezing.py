"""The freeze mask of a run against the weights that the run ended with: a mask of other weights must not be shipped."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from publisher.api.freeze_mask import FILE, FreezeMask, FrozenTensor, architecture_sha256, digest, part
from publisher.engine.run import Hardened
from publisher.errors import PluginError, UsageError
from publisher.model.strict_json import JsonError, strict_object


def mask_of(hardened: Hardened) -> FreezeMask | None:
    """The mask that a step made, if it holds for the final weights; None: no step made one.

    Raises:
        UsageError: a later step changed something that is frozen.
        PluginError: the mask cannot be read, or was never right: it is not for this model.
    """
    made = next((place for place, result in enumerate(hardened.results) if FILE in result.artifacts), None)
    if made is None:
        return None
    step = hardened.results[made].record.id
    try:
        mask = FreezeMask.parse(strict_object(hardened.results[made].artifacts[FILE]))
    except (JsonError, ValidationError) as error:
        raise PluginError(f"step {step!r} made a freeze mask that cannot be read: {error}", where=FILE) from error
    _require_fit(mask, hardened, step)
    stale = [tensor.name for tensor in mask.frozen if _differs(tensor, mask.component, hardened)]
    if stale:
        raise _stale(mask, stale, hardened, made)
    return mask


def _require_fit(mask: FreezeMask, hardened: Hardened, step: str) -> None:
    model = hardened.final
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


def _differs(frozen: FrozenTensor, component: str, hardened: Hardened) -> bool:
    """float32 holds every value of the two shorter types, so its digest tells them all."""
    return digest(part(hardened.final.read(component, frozen.name), frozen.rows), "F32") != frozen.sha256["F32"]


def _stale(mask: FreezeMask, names: list[str], hardened: Hardened, made: int) -> UsageError | PluginError:
    step = hardened.results[made].record.id
    for name in names:
        for culprit in _changed_by(mask.component, name, hardened, made):
            return UsageError(
                f"step {culprit!r} changed {name}, which the freeze mask of {step!r} freezes"
                + (f" (and {len(names) - 1} more tensors)" if len(names) > 1 else ""),
                where=FILE,
                hint=f"A mask is good for the weights that it was made for: put {step!r} behind {culprit!r}.",
            )
    return PluginError(f"step {step!r} made a freeze mask with wrong digests, such as that of {names[0]}", where=FILE)


def _changed_by(component: str, name: str, hardened: Hardened, made: int) -> Iterator[str]:
    """Ids of the steps behind the mask's that changed a tensor."""
    for result in hardened.results[made + 1 :]:
        if name in result.delta.tensors.get(component, {}):
            yield result.record.id
