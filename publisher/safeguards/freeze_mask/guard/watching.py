"""What happens to frozen tensors between two looks at their bytes, seen cheaply at every optimizer step."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any, Protocol

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.names import canonical


class Paths:
    """The way from a denoiser to some of its tensors: another one if a layer was wrapped, replaced or renamed.

    Args:
        denoiser: that is trained.
        names: canonical, of the tensors.
    """

    def __init__(self, denoiser: nn.Module, names: Iterable[str]) -> None:
        wanted = frozenset(names)
        self.wrapped = False
        """A layer is inside of a wrapper of peft that has no adapter, and may get one without another path."""
        self._edges: dict[tuple[int, str], tuple[dict[str, Any], str, object]] = {}
        for name, tensor in denoiser.named_parameters(remove_duplicate=False):
            if canonical(name) in wanted:
                *layers, last = name.split(".")
                self.wrapped = self.wrapped or "base_layer" in layers
                module = denoiser
                for layer in layers:
                    child = module._modules[layer]  # noqa: SLF001 - torch's table of children: asking for it is slow
                    self._add(module._modules, layer, child)  # noqa: SLF001
                    module = child  # type: ignore[assignment]  # a path ends in a module
                self._add(module._parameters, last, tensor)  # noqa: SLF001

    def _add(self, table: dict[str, Any], key: str, value: object) -> None:
        self._edges[id(table), key] = (table, key, value)

    def intact(self) -> bool:
        """Return whether the same layers still hold the same tensors."""
        return all(table.get(key) is value for table, key, value in self._edges.values())


def require_untrained(tensors: Iterable[tuple[str, nn.Parameter]]) -> None:
    """Refuse tensors that ask for gradients, or have one.

    Args:
        tensors: frozen as a whole, with their names.

    Raises:
        MaskBrokenError: names the first one.
    """
    for name, tensor in tensors:
        if tensor.requires_grad or tensor.grad is not None:
            raise MaskBrokenError(
                "is frozen, and was made trainable again, as by requires_grad_(True)",
                where=name,
                hint="Arm the guard after whatever does that, or leave frozen tensors out of it: guard.parameters().",
            )


class Watcher(Protocol):
    """Who wants to know of the steps of a denoiser's optimizers."""

    def trains(self, optimizer: Optimizer) -> bool:
        """Return whether an optimizer is one of them."""

    def before_step(self) -> None:
        """Learn that it is about to step."""

    def on_step_end(self) -> None:
        """Learn that it has stepped."""


_watchers: weakref.WeakSet[Watcher] = weakref.WeakSet()
_hooked: list[object] = []
"""Handles of torch's hooks. They stay: taking one away while torch calls its hooks, as the end of a watcher's life may,
would break the step of an optimizer that has nothing to do with it."""


def watch_optimizers(watcher: Watcher, undo: ExitStack) -> None:
    """Tell a watcher of each step of every torch optimizer that concerns it, as long as it lives.

    Args:
        watcher: is not kept alive.
        undo: is told how to end it.
    """
    if not _hooked:
        _hooked.extend((register_optimizer_step_pre_hook(_before), register_optimizer_step_post_hook(_after)))
    _watchers.add(watcher)
    undo.callback(_watchers.discard, watcher)


def _before(optimizer: Optimizer, *_: object) -> None:
    for watcher in _concerned(optimizer):
        watcher.before_step()


def _after(optimizer: Optimizer, *_: object) -> None:
    for watcher in _concerned(optimizer):
        watcher.on_step_end()


def _concerned(optimizer: Optimizer) -> list[Watcher]:
    return [watcher for watcher in list(_watchers) if watcher.trains(optimizer)]
