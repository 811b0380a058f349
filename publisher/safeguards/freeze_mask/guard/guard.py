"""A fine-tuning under a mask: what a training script holds in its hands."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.optim import Optimizer

from publisher.api.freeze_mask import FILE, FreezeMask
from publisher.errors import ModelError, UsageError
from publisher.model.files import write_atomic
from publisher.safeguards.freeze_mask.guard.arming import arm_published
from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.foreign import hosts_of, parameters_on, require_own_forward
from publisher.safeguards.freeze_mask.guard.record import erase, record
from publisher.safeguards.freeze_mask.guard.watching import Paths, require_untrained, watch_optimizers

HANDFUL = 8
"""Frozen tensors that are compared bit by bit every so many steps, each time others."""


class Guard:
    """A denoiser that is trained under a mask.

    It lives as long as the denoiser does, or until :meth:`release`. As a context manager it looks at every frozen
    tensor when the block ends.

    Args:
        model: a diffusers pipeline, or its denoiser, also inside of torch.compile or peft.
        mask: of a package that was verified.
        every: optimizer steps between two looks at a handful of frozen tensors.

    Raises:
        NotTheModelError: the model is not the one that the mask was made for.
        MaskBrokenError: an adapter sits on a frozen layer.
        UsageError: the denoiser is guarded already, or was wrapped for distributed training before.
    """

    def __init__(self, model: Any, mask: FreezeMask, *, every: int) -> None:
        self.mask = mask
        self._model, self._every = model, every
        with ExitStack() as undo:
            self._armed = arm_published(_denoiser(model, mask.component), mask)
            undo.callback(self._armed.release)
            self._denoiser: Any = self._armed.denoiser
            record(self._denoiser, mask)
            self._look()
            self._steps = 0
            self._unseen = False
            """An optimizer came that may train an adapter; nobody has looked for one since."""
            self._optimizers: weakref.WeakSet[Optimizer] = weakref.WeakSet()
            self._turn = itertools.cycle(self._armed.stays)
            watch_optimizers(self, undo)
            undo.callback(self._denoiser.register_state_dict_pre_hook(_OnSave(self)).remove)  # type: ignore[no-untyped-call]
            self._undo = undo.pop_all()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield what of the denoiser may be trained and asks for it, adapters included, by the mask's names."""
        return ((name, one) for name, one in self._armed.free().items() if one.requires_grad)

    def parameters(self) -> list[nn.Parameter]:
        """Return the same, each once, for an optimizer: nothing else gets a gradient or a state."""
        return list({id(one): one for _, one in self.named_parameters()}.values())

    def exclude_modules(self) -> list[str]:
        """Return the frozen layers, for ``exclude_modules`` of ``LoraConfig`` and other configurations of peft."""
        return list(self._armed.layers)

    def trains(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer has tensors of the denoiser, its adapters, or code on its frozen layers."""
        if optimizer not in self._optimizers:
            ours = {id(one) for one in (*self._denoiser.parameters(), *parameters_on(self._hosts))}
            if ours.isdisjoint(id(one) for group in optimizer.param_groups for one in group["params"]):
                return False
            self._optimizers.add(optimizer)
            self._unseen = True
        return True

    def before_step(self) -> None:
        """Refuse frozen tensors that are trained, and adapters on their layers. Torch optimizers call it.

        Raises:
            MaskBrokenError: says which tensor or layer.
        """
        if not self._paths.intact():
            self._armed.check()
            self._look()
        if self._paths.wrapped or self._unseen:
            self._unseen = False
            self._armed.require_no_adapter()
        require_own_forward(self._hosts, self._armed.kinds)
        require_untrained(self._whole)

    def on_step_end(self) -> None:
        """Put frozen rows back; every so many steps look at a handful of tensors.

        Torch optimizers call it by themselves. Call it after each step of any other.

        Raises:
            MaskBrokenError: a tensor changed.
        """
        self.before_step()
        self._armed.enforce()
        self._steps += 1
        if self._steps % self._every == 0:
            self._armed.check(dict.fromkeys(itertools.islice(self._turn, HANDFUL)))

    def check(self) -> None:
        """Look at every frozen tensor bit by bit, and for adapters on their layers.

        Raises:
            MaskBrokenError: says what broke the mask.
        """
        self._armed.check()

    def save(self, folder: str | Path) -> None:
        """Check everything, then save what was given to the guard, with the mask beside the denoiser's weights.

        Args:
            folder: as for ``save_pretrained``. Of a pipeline the denoiser is in a folder below.

        Raises:
            MaskBrokenError: nothing was saved.
        """
        self.check()
        whole = self._model if hasattr(self._model, "components") else self._denoiser
        whole.save_pretrained(folder)
        place = Path(folder) / self.mask.component if whole is self._model else Path(folder)
        write_atomic(place / FILE, self.mask.as_file())

    def release(self) -> None:
        """End it: the denoiser asks for gradients as before. A second time does nothing."""
        self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.check()
        except MaskBrokenError:
            erase(self._denoiser)
            raise
        finally:
            self.release()

    def _look(self) -> None:
        """Remember where the frozen tensors are."""
        self._paths = Paths(self._denoiser, self._armed.stays)
        tensors = self._armed.tensors()
        self._hosts = hosts_of(self._denoiser, self._armed.layers)
        self._whole = [(name, tensors[name]) for name, stay in self._armed.stays.items() if not stay.rows]


class _OnSave:
    """Hook of a denoiser's ``state_dict``: whatever saves it, asks for that first."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def __call__(self, *_: object) -> None:
        self._guard.check()

    def __reduce__(self) -> tuple[Any, ...]:
        return _Nothing, ()  # a copy of the denoiser is not guarded


class _Nothing:
    """What a copy has in place of the hook."""

    def __call__(self, *_: object) -> None:
        """Ignore the call."""


def _denoiser(model: Any, component: str) -> Any:
    """Return a pipeline's component; a network is the denoiser itself."""
    if isinstance(model, nn.Module):
        return _require_early(model)
    found = getattr(model, component, None)
    if not isinstance(found, nn.Module):
        raise ModelError(
            f"the mask is of the component {component!r}, and a {type(model).__name__} has none",
            hint="Give the guard a diffusers pipeline, or the denoiser itself.",
        )
    return found


def _require_early(model: nn.Module) -> nn.Module:
    """Refuse a wrapped model: distributed training counts on gradients that were asked for when it began."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise UsageError(
            "the denoiser was wrapped for distributed training before its tensors were frozen",
            hint="Call publisher.guard(denoiser, ...) before accelerator.prepare(denoiser, ...).",
        )
    return model
