"""The kinds of adaptation that are simulated: what copies differ by, how that takes a step, and what of it merges.

    keys, values   Delta_n of each concept, in factors, by gradient descent                              (``mima.py``)
    other tensors  one delta for all: the mean of the concepts' gradients, by Adam            (as in the authors' code)
    adapters       A_n B_n, by Adam; on keys and values they merge as Delta_n, elsewhere their mean (or sum) counts
    words          what is added to the states of a concept's captions, by Adam

Deltas are kept in the working dtype: float32 over a bfloat16 denoiser. N is the number of concepts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from publisher.api.diffusion.loop import pack, unpack
from publisher_immunize.denoiser import Patch, PatchedDenoiser, Term
from publisher_immunize.mima import added, delta, inner_step

BETAS = (0.9, 0.999)
EPS = 1e-8
Tensors = dict[str, Tensor]


class Adam:
    """Adam without weight decay, as a function that can be differentiated."""

    def __init__(self, lr: float) -> None:
        self.lr, self.count = lr, 0
        self.first: Tensors = {}
        self.second: Tensors = {}

    def __call__(self, gradients: Mapping[str, Tensor]) -> Tensors:
        """Return what to add to each variable."""
        self.count += 1
        steps = {}
        for name, g in gradients.items():
            zero = torch.zeros_like(g)
            self.first[name] = BETAS[0] * self.first.get(name, zero) + (1 - BETAS[0]) * g
            self.second[name] = BETAS[1] * self.second.get(name, zero) + (1 - BETAS[1]) * g.square()
            mean = self.first[name] / (1 - BETAS[0] ** self.count)
            size = (self.second[name] / (1 - BETAS[1] ** self.count) + EPS**2).sqrt()
            steps[name] = -self.lr * mean / (size + EPS)
        return steps

    def state(self) -> Tensors:
        """Return moments and step count for a checkpoint."""
        moments = {f"1.{name}": value for name, value in self.first.items()}
        moments |= {f"2.{name}": value for name, value in self.second.items()}
        return {**moments, "count": torch.tensor(self.count)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        self.count = int(state["count"])
        self.first = {name[2:]: value for name, value in state.items() if name.startswith("1.")}
        self.second = {name[2:]: value for name, value in state.items() if name.startswith("2.")}


class AdaptationPart(ABC):
    """Some tensors of an adaptation."""

    @abstractmethod
    def variables(self, states: Tensor) -> Tensors:
        """Return what a step differentiates with respect to.

        Args:
            states: ``(N, r n, D)``, the texts of the step's batch.
        """

    @abstractmethod
    def patch(self, variables: Mapping[str, Tensor]) -> Patch:
        """Return what each concept's copy differs by, for batches of N groups."""

    @abstractmethod
    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:
        """Take a step."""

    @abstractmethod
    def state(self) -> Tensors:
        """Return the tensors for a checkpoint, without graphs."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned; also cut graphs."""

    def shared(self) -> Patch:
        """Return the part of :meth:`patch` that all concepts have in common; keys and values left out."""
        return Patch()

    def read(self, rows: Tensor) -> Tensors:  # noqa: ARG002 - for subclasses
        """Return ``Delta_n T^T (N, o, M)`` by path of the key or value projection, for ``rows (M, D)`` = T."""
        return {}


class KeysValues(AdaptationPart):
    """Delta_n of every key and value projection, in factors.

    Args:
        host: patched denoiser.
        groups: number of concepts N.
        rate: learning rate.
        rule: rule of the step's length: ``inner_rule``.
    """

    def __init__(self, host: PatchedDenoiser, groups: int, rate: float, rule: str) -> None:
        self.host, self.groups = host, groups
        self.lr, self.rule = rate, rule
        some = next(iter(host.keys_values.values())).weight
        self.empty = torch.zeros(0, dtype=host.work, device=some.device)
        self.x = self.empty.reshape(groups, 0, some.shape[1])
        self.dy = {path: self.empty.reshape(groups, 0, layer.out_features) for path, layer in host.keys_values.items()}
        self.base: Tensors = {}

    def variables(self, states: Tensor) -> Tensors:
        """Return zeros that are added to each row that a layer gives: their gradient is dY_n."""
        n, r = states.shape[:2]
        return {path: self.empty.new_zeros(n, r, value.shape[2]) for path, value in self.dy.items()}

    def patch(self, variables: Mapping[str, Tensor]) -> Patch:
        """Return ``Delta_n x`` for every projection."""
        return Patch(terms={path: self._term(path, variables.get(path)) for path in self.dy})

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:
        """Append the factors of one gradient."""
        self.x = torch.cat([self.x, states], 1)
        for path, g in gradients.items():
            step = inner_step(g, states, self.lr, normalised=self.rule == "normalised")
            self.dy[path] = torch.cat([self.dy[path], step], 1)

    def read(self, rows: Tensor) -> Tensors:
        """Return ``(-lr dY_n)^T (X_n T^T)``: no matrix of the layer's size."""
        rows = rows.to(self.x.dtype)
        met = self.x @ rows.T
        found = {path: value.mT @ met for path, value in self.dy.items()}
        return {path: value + self.base[path] @ rows.T if self.base else value for path, value in found.items()}

    def state(self) -> Tensors:
        """Return whole matrices: the factors grow with every step, these do not."""
        return {path: self._whole(path).detach() for path in self.dy}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Start from whole matrices."""
        self.base = dict(state)
        self.x = self.x[:, :0].detach()
        self.dy = {path: value[:, :0].detach() for path, value in self.dy.items()}

    def _whole(self, path: str) -> Tensor:
        whole = delta(self.x, self.dy[path])
        return self.base[path] + whole if self.base else whole

    def _term(self, path: str, zeros: Tensor | None) -> Term:
        def term(x: Tensor) -> Tensor:
            rows = x.reshape(self.groups, -1, x.shape[-1])
            out = added(rows, self.x, self.dy[path])
            if self.base:
                out = out + rows @ self.base[path].mT
            if zeros is not None:
                out = out + zeros
            return out.reshape(*x.shape[:-1], -1)

        return term


class SharedDeltas(AdaptationPart):
    """One delta of each other tensor, for all concepts.

    Args:
        names: names of the tensors.
        host: patched denoiser.
        groups: number of concepts N.
        rate: learning rate.
    """

    def __init__(self, names: Sequence[str], host: PatchedDenoiser, groups: int, rate: float) -> None:
        self.groups = groups
        self.delta = {name: torch.zeros_like(host.tensor(name)) for name in names}
        self.adam = Adam(rate)

    def variables(self, states: Tensor) -> Tensors:  # noqa: ARG002 - the same for every batch
        """Return the deltas."""
        return dict(self.delta)

    def patch(self, variables: Mapping[str, Tensor]) -> Patch:
        """Return the deltas of all tensors."""
        return Patch(weights={name: variables.get(name, value) for name, value in self.delta.items()})

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:  # noqa: ARG002 - as above
        """Take a step of Adam, by the mean of the concepts' gradients."""
        steps = self.adam({name: g / self.groups for name, g in gradients.items()})
        self.delta = {name: value + steps[name] for name, value in self.delta.items()}

    def shared(self) -> Patch:
        """Return all deltas."""
        return self.patch({})

    def state(self) -> Tensors:
        """Return deltas and moments."""
        return pack({"delta": self.delta, "adam": self.adam.state()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        self.delta = {name: groups["delta"][name] for name in self.delta}
        self.adam.restore(groups["adam"])


class LoraAdapters(AdaptationPart):
    """LoRA on every attention layer: ``x A_n B_n``, A_n sampled and B_n zero, as peft begins.

    Args:
        host: patched denoiser.
        groups: number of concepts N.
        rate: learning rate.
        rank: rank of A and B.
        generator: source of A.
        rest: rule outside of keys and values: ``merge.rest``.
    """

    def __init__(
        self, host: PatchedDenoiser, groups: int, rate: float, rank: int, generator: torch.Generator, rest: str = "mean"
    ) -> None:
        self.host, self.groups, self.count = host, groups, groups if rest == "mean" else 1
        self.adam = Adam(rate)
        self.pairs: Tensors = {}
        for path, layer in host.projections.items():
            shape = (groups, layer.in_features, rank)
            sampled = (torch.rand(shape, generator=generator) * 2 - 1) / layer.in_features**0.5
            self.pairs[f"a.{path}"] = sampled.to(layer.weight.device, host.work)
            self.pairs[f"b.{path}"] = self.pairs[f"a.{path}"].new_zeros(groups, rank, layer.out_features)

    def variables(self, states: Tensor) -> Tensors:  # noqa: ARG002 - the same for every batch
        """Return both factors of every layer."""
        return dict(self.pairs)

    def patch(self, variables: Mapping[str, Tensor]) -> Patch:
        """Return terms that send each group through its own adapters."""
        pairs = {**self.pairs, **variables}
        return Patch(terms={path: self._term(path, pairs) for path in self.host.projections})

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:  # noqa: ARG002 - as above
        """Take a step of Adam."""
        steps = self.adam(gradients)
        self.pairs = {name: value + steps[name] for name, value in self.pairs.items()}

    def shared(self) -> Patch:
        """Return the mean of what the adapters add outside of keys and values, or the sum."""
        others = [path for path in self.host.projections if path not in self.host.keys_values]
        return Patch(terms={path: self._together(path) for path in others})

    def read(self, rows: Tensor) -> Tensors:
        """Return ``(T A_n B_n)^T``."""
        return {
            path: ((rows.to(self.host.work) @ self.pairs[f"a.{path}"]) @ self.pairs[f"b.{path}"]).mT
            for path in self.host.keys_values
        }

    def state(self) -> Tensors:
        """Return factors and moments."""
        return pack({"pairs": self.pairs, "adam": self.adam.state()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        self.pairs = {name: groups["pairs"][name] for name in self.pairs}
        self.adam.restore(groups["adam"])

    def _term(self, path: str, pairs: Mapping[str, Tensor]) -> Term:
        def term(x: Tensor) -> Tensor:
            rows = x.reshape(self.groups, -1, x.shape[-1])
            return ((rows @ pairs[f"a.{path}"]) @ pairs[f"b.{path}"]).reshape(*x.shape[:-1], -1)

        return term

    def _together(self, path: str) -> Term:
        a, b = self.pairs[f"a.{path}"], self.pairs[f"b.{path}"]
        return lambda x: (x @ a.transpose(0, 1).flatten(1)) @ b.flatten(0, 1) / self.count


class Words(AdaptationPart):
    """Numbers that are added to the states of each concept's captions, behind the start token.

    Args:
        shape: N, positions, width.
        host: patched denoiser.
        rate: learning rate.
    """

    def __init__(self, shape: tuple[int, int, int], host: PatchedDenoiser, rate: float) -> None:
        self.words = torch.zeros(shape, dtype=host.work, device=host.denoiser.device)
        self.adam = Adam(rate)

    def variables(self, states: Tensor) -> Tensors:  # noqa: ARG002 - the same for every batch
        """Return the words."""
        return {"words": self.words}

    def patch(self, variables: Mapping[str, Tensor]) -> Patch:
        """Return the words of every concept."""
        return Patch(words=variables.get("words", self.words))

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:  # noqa: ARG002 - as above
        """Take a step of Adam."""
        self.words = self.words + self.adam(gradients)["words"]

    def shared(self) -> Patch:
        """Return all words: each concept has its own."""
        return self.patch({})

    def state(self) -> Tensors:
        """Return words and moments."""
        return pack({"words": {"words": self.words}, "adam": self.adam.state()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        groups = unpack(state)
        self.words = groups["words"]["words"]
        self.adam.restore(groups["adam"])
