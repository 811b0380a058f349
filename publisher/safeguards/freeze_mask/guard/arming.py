"""Frozen tensors of a denoiser: kept out of training, put back, looked at again, let go.

A whole tensor asks for no gradient, so no optimizer reads or writes it. Rows of a tensor cannot be switched off: their
gradient is zeroed as it arrives, and :meth:`Armed.enforce` puts them back after a step, because weight decay and
momentum move what has no gradient.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from publisher.api.freeze_mask import CASTS, FreezeMask, Frozen, FrozenTensor, Rows, digest, digests, part
from publisher.errors import UsageError
from publisher.safeguards.freeze_mask.guard.adapters import layers_of, require_no_adapter
from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError, NotTheModelError
from publisher.safeguards.freeze_mask.guard.foreign import hosts_of
from publisher.safeguards.freeze_mask.guard.names import parameters_of, unwrapped
from publisher.safeguards.freeze_mask.guard.norms import cure

MOVED = (
    "Frozen rows are put back after each step of an optimizer. If something else moved them, such as\n"
    "optimizer.eval() of a schedule-free one, call guard.on_step_end() after it. Otherwise:\n"
)
"""Hint where rows alone changed."""
_armed: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@dataclass(frozen=True)
class Stay:
    """What stays of one tensor."""

    rows: Rows
    """Rows that are frozen; empty: all of the tensor."""
    sha256: Mapping[str, str]
    """Digest for each type of :data:`publisher.api.freeze_mask.CASTS`."""

    @classmethod
    def of(cls, tensor: torch.Tensor, rows: Rows) -> Stay:
        """Take the tensor as it is now."""
        return cls(rows, digests(tensor, rows))

    @classmethod
    def published(cls, tensor: FrozenTensor) -> Stay:
        """Take the tensor as a mask says."""
        return cls(tensor.rows, dict(tensor.sha256.items()))

    def is_in(self, tensor: torch.Tensor) -> bool:
        """Return whether the tensor still has it: in its own type, or cast to another one and back.

        Args:
            tensor: of the shape that the mask says.
        """
        kept = part(tensor.detach(), self.rows)
        return any(digest(kept, cast) == self.sha256[cast] and _survives(kept, cast) for cast in _nearest_first(kept))


def _nearest_first(tensor: torch.Tensor) -> list[str]:
    return sorted(CASTS, key=lambda cast: getattr(torch, CASTS[cast]) != tensor.dtype)


def _survives(tensor: torch.Tensor, cast: str) -> bool:
    """Return whether a cast loses nothing: its digest after the cast then speaks for all of the tensor."""
    dtype = getattr(torch, CASTS[cast])
    return tensor.dtype == dtype or bool(torch.equal(tensor.to(dtype).to(tensor.dtype), tensor))


def arm(denoiser: nn.Module, frozen: Frozen) -> Armed:
    """Freeze tensors of a denoiser as they are now.

    Args:
        denoiser: the denoiser, or a wrapper of torch.compile, DDP or peft around it.
        frozen: names, and rows where not all of a tensor is meant.

    Raises:
        NotTheModelError: a tensor is not there, is too short, or is of no floating type.
        MaskBrokenError: an adapter sits on a frozen layer.
        UsageError: the denoiser is armed already.
    """
    denoiser = unwrapped(denoiser)
    tensors = _require(parameters_of(denoiser), frozen)
    return Armed(denoiser, {name: Stay.of(tensors[name], rows) for name, rows in frozen.items()})


def arm_published(denoiser: nn.Module, mask: FreezeMask) -> Armed:
    """Freeze tensors of a denoiser that are the published ones.

    Args:
        denoiser: as for :func:`arm`.
        mask: says which they are, and their digests.

    Raises:
        NotTheModelError: and a tensor that has another shape, or is not the published one.
        MaskBrokenError: as for :func:`arm`.
        UsageError: as for :func:`arm`.
    """
    denoiser = unwrapped(denoiser)
    tensors = _require(parameters_of(denoiser), mask.rows)
    stays = {}
    for tensor in mask.frozen:
        if tuple(tensors[tensor.name].shape) != tensor.shape:
            raise NotTheModelError(
                f"has the shape {tuple(tensors[tensor.name].shape)}, the published tensor has {tensor.shape}",
                where=tensor.name,
                hint="A mask is good for one model only: load the model that it came with.",
            )
        stays[tensor.name] = Stay.published(tensor)
        if not stays[tensor.name].is_in(tensors[tensor.name]):
            raise NotTheModelError(
                "is frozen, and is not the published tensor (nor that tensor cast to another type)",
                where=tensor.name,
                hint="Start from the released weights, unfused and unquantised. If they were fine-tuned before without"
                " the mask,\nthat has changed what is frozen: see 'publisher audit'.",
            )
    return Armed(denoiser, stays)


class Armed:
    """A denoiser whose frozen tensors stay: see :func:`arm`."""

    def __init__(self, denoiser: nn.Module, stays: Mapping[str, Stay]) -> None:
        """See :func:`arm`; ``stays`` by canonical name, all of them there."""
        if denoiser in _armed:
            raise UsageError("the denoiser is guarded already", hint="Release the other guard first.")
        self.denoiser = denoiser
        self.stays = dict(stays)
        self.layers = layers_of(stays)
        """Layers that no adapter may sit on."""
        require_no_adapter(denoiser, self.layers)
        self.kinds = {name: type(host) for name, host in hosts_of(denoiser, self.layers).items()}
        """Class of each of these layers."""
        tensors = parameters_of(denoiser)
        self._kept = {
            name: part(tensors[name].detach(), stay.rows).clone() for name, stay in stays.items() if stay.rows
        }
        with ExitStack() as undo:
            for name, stay in stays.items():
                _hold(tensors[name], stay.rows, undo)
            cure(denoiser, undo)
            _armed.add(denoiser)
            undo.callback(_armed.discard, denoiser)
            self._undo = undo.pop_all()

    def tensors(self) -> dict[str, nn.Parameter]:
        """Return frozen tensors, in part or in full, as the denoiser has them now.

        Raises:
            MaskBrokenError: one is gone.
        """
        there = parameters_of(self.denoiser)
        gone = next((name for name in self.stays if name not in there), None)
        if gone is not None:
            raise MaskBrokenError("is frozen, and is gone", where=gone, hint="The layer was replaced or renamed.")
        return {name: there[name] for name in self.stays}

    def free(self) -> dict[str, nn.Parameter]:
        """Return what may be trained, by canonical name: what is not frozen as a whole, adapters included."""
        whole = {id(tensor) for name, tensor in self.tensors().items() if not self.stays[name].rows}
        return {name: one for name, one in parameters_of(self.denoiser).items() if id(one) not in whole}

    @torch.no_grad()
    def enforce(self) -> None:
        """Put frozen rows back; call it after each optimizer step. Whole tensors need no such thing."""
        if not self._kept:
            return
        tensors = self.tensors()
        for name, kept in self._kept.items():
            done = 0
            for start, end in self.stays[name].rows:
                tensors[name][start:end].copy_(kept[done : done + end - start])
                done += end - start

    def require_no_adapter(self) -> None:
        """Look for adapters on frozen layers.

        Raises:
            MaskBrokenError: says of which kind, and where.
        """
        require_no_adapter(self.denoiser, self.layers, self.kinds)

    def check(self, names: Iterable[str] | None = None) -> None:
        """Look at frozen tensors bit by bit, and for adapters on their layers.

        Args:
            names: of these tensors; default: all.

        Raises:
            MaskBrokenError: says which one changed, and how many.
        """
        self.require_no_adapter()
        tensors = self.tensors()
        changed = [
            name for name in (self.stays if names is None else names) if not self.stays[name].is_in(tensors[name])
        ]
        if changed:
            others = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
            raise MaskBrokenError(
                f"is frozen, and has changed{others}",
                where=changed[0],
                hint=(MOVED if all(self.stays[name].rows for name in changed) else "")
                + "Go back to a checkpoint from before, or to the released weights.",
            )

    def release(self) -> None:
        """Let everything go: gradients are asked for as before, hooks are gone. A second time does nothing."""
        self._undo.close()


def _require(tensors: Mapping[str, Tensor], frozen: Frozen) -> Mapping[str, Tensor]:
    """Refuse what cannot be frozen."""
    for name, rows in frozen.items():
        if name not in tensors:
            raise NotTheModelError(
                "the mask freezes this tensor, and the denoiser has none of that name",
                where=name,
                hint="A mask is good for one model only: load the model that it came with.",
            )
        tensor = tensors[name]
        if not tensor.is_floating_point() or tensor.is_meta:
            what = "no values (device 'meta')" if tensor.is_meta else f"the type {tensor.dtype}"
            raise NotTheModelError(
                f"has {what}, so nobody can see whether it stays",
                where=name,
                hint="Load it as float32, float16 or bfloat16, not quantised.",
            )
        if rows and (not tensor.ndim or rows[-1][1] > len(tensor)):
            raise NotTheModelError(f"has no rows up to {rows[-1][1]}: its shape is {tuple(tensor.shape)}", where=name)
    return tensors


def _hold(tensor: nn.Parameter, rows: Rows, undo: ExitStack) -> None:
    """Keep gradients away from a tensor, or from rows of it."""
    before = tensor.requires_grad
    if not rows:
        undo.callback(tensor.requires_grad_, before)
        tensor.requires_grad_(False)
        tensor.grad = None
        return
    tensor.requires_grad_()  # hooks of a tensor need that, and stay when it is taken back
    undo.callback(tensor.register_hook(_zeroed(rows)).remove)  # type: ignore[no-untyped-call]
    tensor.requires_grad_(before)
    if tensor.grad is not None:
        tensor.grad = _zeroed(rows)(tensor.grad)


def _zeroed(rows: Rows) -> Callable[[Tensor], Tensor]:
    def hook(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        for start, end in rows:
            gradient[start:end] = 0
        return gradient

    return hook
