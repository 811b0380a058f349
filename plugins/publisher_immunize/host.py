"""The denoiser with other weights and with terms added to its layers, for one forward and backward at a time.

Nothing is copied: weights are swapped in as functions of what is trained, layers get what an adaptation adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from publisher.api.diffusion.denoiser import Denoiser
from publisher_immunize.names import ATTENTION, KEYS_VALUES

Term = Callable[[Tensor], Tensor]
"""Input of a layer ``(B, n, i)`` -> what is added to its output ``(B, n, o)``."""
Weights = Mapping[str, Tensor]
"""Name of a tensor of the denoiser -> it, in the working dtype."""


@dataclass(frozen=True)
class Change:
    """What an adaptation adds to a denoiser."""

    weights: Weights = field(default_factory=dict)
    """Added to tensors."""
    terms: Mapping[str, Term] = field(default_factory=dict)
    """Path of a layer -> what is added to its output, made in the working dtype."""
    words: Tensor | None = None
    """``(N, n, D)``: added to the states of each concept's captions."""


NOTHING = Change()


def combined(changes: Sequence[Change]) -> Change:
    """All of them; no two change the same tensor or layer."""
    weights = {name: value for change in changes for name, value in change.weights.items()}
    terms = {path: term for change in changes for path, term in change.terms.items()}
    return Change(weights, terms, next((change.words for change in changes if change.words is not None), None))


class Host(nn.Module):
    """A frozen denoiser that forwards as another one.

    Args:
        denoiser: see there; its weights are never written.
        second: gradients of gradients will be asked for.
    """

    def __init__(self, denoiser: Denoiser, *, second: bool = False) -> None:
        super().__init__()
        self.denoiser, self.network, self.second = denoiser, denoiser.network, second
        self.work = torch.promote_types(denoiser.dtype, torch.float32)
        linear = {path: module for path, module in self.network.named_modules() if isinstance(module, nn.Linear)}
        self.projections = {path: module for path, module in linear.items() if ATTENTION.search(path)}
        self.keys_values = {path: module for path, module in linear.items() if KEYS_VALUES.search(path)}
        self.names = tuple(name for name, _ in self.network.named_parameters())
        self._terms: Mapping[str, Term] = {}
        for path, module in self.projections.items():
            module.register_forward_hook(self._hook(path))

    def tensor(self, name: str) -> Tensor:
        """A tensor of the frozen denoiser, in the working dtype."""
        return self.network.get_parameter(name).detach().to(self.work)

    def run(self, weights: Weights, change: Change, work: Callable[[], Any]) -> Any:
        """What ``work`` returns while the denoiser has these weights and this change.

        Gradients of what is computed inside must be taken inside: with gradient checkpointing the backward runs the
        layers again.
        """
        swapped = dict(weights)
        for name, delta in change.weights.items():
            swapped[name] = (swapped[name] if name in swapped else self.tensor(name)) + delta
        self._terms = change.terms
        try:
            with self._attention():
                cast = {f"network.{name}": value.to(self.denoiser.dtype) for name, value in swapped.items()}
                return functional_call(self, cast, (work,))
        finally:
            self._terms = {}

    def forward(self, work: Callable[[], Any]) -> Any:
        """What ``functional_call`` runs while the weights are swapped."""
        return work()

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            term = self._terms.get(path)
            if term is None:
                return None
            return (output.to(self.work) + term(inputs[0].to(self.work))).to(output.dtype)

        return add

    def _attention(self) -> AbstractContextManager[Any]:
        """Only the plain attention can be differentiated twice."""
        return sdpa_kernel(SDPBackend.MATH) if self.second else nullcontext()
