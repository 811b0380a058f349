"""The denoiser with other weights and with terms added to its layers, for one forward and backward at a time.

Nothing is copied: weights are swapped in as functions of what is trained, layers get what an adaptation adds. A batch
then goes through it: predictions and losses, with and without the adaptation.
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
from publisher.api.diffusion.text import Text
from publisher_immunize.data import ConceptBatch, ImmunizeData
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.plan import in_set, merges

Term = Callable[[Tensor], Tensor]
"""Input of a layer ``(B, n, i)`` -> what is added to its output ``(B, n, o)``."""
Weights = Mapping[str, Tensor]
"""Name of a tensor of the denoiser -> it, in the working dtype."""


@dataclass(frozen=True)
class Patch:
    """All that an adaptation adds to a denoiser."""

    weights: Weights = field(default_factory=dict)
    """Deltas of tensors, by name."""
    terms: Mapping[str, Term] = field(default_factory=dict)
    """Path of a layer -> term that is added to its output, computed in the working dtype."""
    words: Tensor | None = None
    """Numbers ``(N, n, D)`` that are added to the states of each concept's captions."""


NOTHING = Patch()


def combined(patches: Sequence[Patch]) -> Patch:
    """Return all patches as one; no two of them may have the same tensor or layer."""
    weights = {name: value for patch in patches for name, value in patch.weights.items()}
    terms = {path: term for patch in patches for path, term in patch.terms.items()}
    return Patch(weights, terms, next((patch.words for patch in patches if patch.words is not None), None))


class PatchedDenoiser(nn.Module):
    """A frozen denoiser that forwards as another one.

    Args:
        denoiser: frozen denoiser; its weights are never written.
        second: gradients of gradients will be asked for.
    """

    def __init__(self, denoiser: Denoiser, *, second: bool = False) -> None:
        super().__init__()
        self.denoiser, self.network, self.second = denoiser, denoiser.network, second
        self.work = torch.promote_types(denoiser.dtype, torch.float32)
        linear = {path: module for path, module in self.network.named_modules() if isinstance(module, nn.Linear)}
        anatomy = denoiser.anatomy
        self.names = tuple(name for name, _ in self.network.named_parameters())
        self.projections = {path: linear[path] for path in anatomy.adapted(linear)}
        """Layers that simulated adapters sit on."""
        read = set(in_set(self.names, "cross-attention-kv", anatomy)) if merges(anatomy) else set()
        self.keys_values = {path: module for path, module in linear.items() if f"{path}.weight" in read}
        """Layers that read the text as its encoders write it; none where attention is joint."""
        self._terms: Mapping[str, Term] = {}
        for path, module in self.projections.items():
            module.register_forward_hook(self._hook(path))

    def tensor(self, name: str) -> Tensor:
        """Return a tensor of the frozen denoiser, in the working dtype."""
        return self.network.get_parameter(name).detach().to(self.work)

    def run(self, weights: Weights, patch: Patch, work: Callable[[], Any]) -> Any:
        """Return what ``work`` returns while the denoiser has these weights and this patch.

        Gradients of what is computed inside must be taken inside: with gradient checkpointing the backward runs the
        layers again.
        """
        swapped = dict(weights)
        for name, delta in patch.weights.items():
            swapped[name] = (swapped[name] if name in swapped else self.tensor(name)) + delta
        self._terms = patch.terms
        try:
            with self._attention():
                cast = {f"network.{name}": value.to(self.denoiser.dtype) for name, value in swapped.items()}
                return functional_call(self, cast, (work,))
        finally:
            self._terms = {}

    def forward(self, work: Callable[[], Any]) -> Any:
        """Run what ``functional_call`` calls while the weights are swapped."""
        return work()

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            term = self._terms.get(path)
            if term is None:
                return None
            return (output.to(self.work) + term(inputs[0].to(self.work))).to(output.dtype)

        return add

    def _attention(self) -> AbstractContextManager[Any]:
        """Choose the plain attention where gradients are differentiated: no other one can be."""
        return sdpa_kernel(SDPBackend.MATH) if self.second else nullcontext()


@dataclass(frozen=True)
class Denoising:
    """The denoiser, the data and the parameters that both levels compute with."""

    host: PatchedDenoiser
    data: ImmunizeData
    params: ImmunizeParams
    """Parameters with every None replaced."""

    def states(self, batch: ConceptBatch) -> Tensor:
        """Return the texts as the layers see them, ``(N, r n, D)`` in the working dtype."""
        states = self.data.text(batch.texts).states.to(self.host.denoiser.dtype).to(self.host.work)
        return states.reshape(batch.groups, -1, states.shape[-1])

    def predict(self, batch: ConceptBatch, patch: Patch = NOTHING) -> Tensor:
        """Return predictions ``(N r, c, h, w)``. Of the patch, only the words are added here."""
        x = self.data.noising.noisy(batch.x, batch.noise, batch.t)
        return self.host.denoiser(x, batch.t, self._text(batch, patch))

    def target(self, batch: ConceptBatch) -> Tensor:
        """Return what training calls right, of the same shape."""
        return self.data.noising.target(batch.x, batch.noise, batch.t)

    def losses(self, batch: ConceptBatch, patch: Patch = NOTHING) -> Tensor:
        """Return the diffusion loss of every row, ``(N, r)``."""
        return rows(self.predict(batch, patch) - self.target(batch), batch)

    def frozen(self, batch: ConceptBatch) -> Tensor:
        """Return the predictions of the denoiser as it was."""
        with torch.no_grad():
            predicted: Tensor = self.host.run({}, NOTHING, lambda: self.predict(batch))
        return predicted

    def _text(self, batch: ConceptBatch, patch: Patch) -> Text:
        text = self.data.text(batch.texts)
        if patch.words is None:
            return text
        added = patch.words[:, None].repeat(1, batch.rows, 1, 1)
        added[:, batch.own :] = 0
        added[:, :, 0] = 0
        return Text(text.states + added.flatten(0, 1), text.pooled)


def rows(difference: Tensor, batch: ConceptBatch) -> Tensor:
    """Return the mean square of every row, ``(N, r)``."""
    return difference.square().mean((1, 2, 3)).reshape(batch.groups, -1)
