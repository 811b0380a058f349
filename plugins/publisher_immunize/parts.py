"""What an adaptation consists of: what its copies differ by, how that takes a step, and what of it merges.

See ``inner.py`` for the equations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from publisher_immunize.host import Change, Host, Term

BETAS = (0.9, 0.999)
EPS = 1e-8
Tensors = dict[str, Tensor]


def packed(groups: Mapping[str, Mapping[str, Tensor]]) -> Tensors:
    """Groups of tensors as one, without graphs."""
    return {f"{group}/{name}": value.detach() for group, values in groups.items() for name, value in values.items()}


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensors]:
    """What :func:`packed` made one."""
    groups: dict[str, Tensors] = {}
    for key, value in state.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    return groups


class Adam:
    """Steps of Adam without weight decay, as functions: they can be differentiated."""

    def __init__(self, lr: float) -> None:
        self.lr, self.count = lr, 0
        self.first: Tensors = {}
        self.second: Tensors = {}

    def __call__(self, gradients: Mapping[str, Tensor]) -> Tensors:
        """What to add to each variable."""
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
        """For a checkpoint."""
        moments = {f"1.{name}": value for name, value in self.first.items()}
        moments |= {f"2.{name}": value for name, value in self.second.items()}
        return {**moments, "count": torch.tensor(self.count)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """What :meth:`state` gave."""
        self.count = int(state["count"])
        self.first = {name[2:]: value for name, value in state.items() if name.startswith("1.")}
        self.second = {name[2:]: value for name, value in state.items() if name.startswith("2.")}


class Part(ABC):
    """Some tensors of an adaptation."""

    @abstractmethod
    def variables(self, states: Tensor) -> Tensors:
        """What a step differentiates with respect to; ``states (N, r n, D)`` are the texts of its batch."""

    @abstractmethod
    def change(self, variables: Mapping[str, Tensor]) -> Change:
        """What each concept's copy differs by, for batches of N groups."""

    @abstractmethod
    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:
        """Take a step."""

    @abstractmethod
    def state(self) -> Tensors:
        """For a checkpoint; without graphs."""

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """What :meth:`state` gave; also cuts graphs."""

    def shared(self) -> Change:
        """What of :meth:`change` is, or is taken to be, the same for all concepts; keys and values left out."""
        return Change()

    def read(self, rows: Tensor) -> Tensors:  # noqa: ARG002 - for subclasses
        """Path of a key or value projection -> ``Delta_n T^T (N, o, M)`` for ``rows (M, D)`` = T."""
        return {}


class KeysValues(Part):
    """Delta_n of every key and value projection, in factors.

    Args:
        host: the denoiser.
        groups: N.
        rate: of learning.
        rule: how far a step goes: ``inner_rule``.
    """

    def __init__(self, host: Host, groups: int, rate: float, rule: str) -> None:
        self.host, self.groups = host, groups
        self.lr, self.rule = rate, rule
        some = next(iter(host.keys_values.values())).weight
        self.empty = torch.zeros(0, dtype=host.work, device=some.device)
        self.x = self.empty.reshape(groups, 0, some.shape[1])
        self.dy = {path: self.empty.reshape(groups, 0, layer.out_features) for path, layer in host.keys_values.items()}
        self.base: Tensors = {}

    def variables(self, states: Tensor) -> Tensors:
        """Zeros, one for each row that a layer gives."""
        n, r = states.shape[:2]
        return {path: self.empty.new_zeros(n, r, value.shape[2]) for path, value in self.dy.items()}

    def change(self, variables: Mapping[str, Tensor]) -> Change:
        """``Delta_n x``, as ``(x X_n^T) (-lr dY_n)``."""
        return Change(terms={path: self._term(path, variables.get(path)) for path in self.dy})

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:
        """Append the factors of one gradient."""
        self.x = torch.cat([self.x, states], 1)
        for path, g in gradients.items():
            self.dy[path] = torch.cat([self.dy[path], -self._scale(g, states) * g], 1)

    def read(self, rows: Tensor) -> Tensors:
        """``-lr dY_n^T (X_n T^T)``: no matrix of the layer's size."""
        rows = rows.to(self.x.dtype)
        met = self.x @ rows.T
        found = {path: value.mT @ met for path, value in self.dy.items()}
        return {path: value + self.base[path] @ rows.T if self.base else value for path, value in found.items()}

    def state(self) -> Tensors:
        """Whole matrices: the factors grow with every step, these do not."""
        return {path: self._whole(path).detach() for path in self.dy}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Start from whole matrices."""
        self.base = dict(state)
        self.x = self.x[:, :0].detach()
        self.dy = {path: value[:, :0].detach() for path, value in self.dy.items()}

    def _whole(self, path: str) -> Tensor:
        whole = self.dy[path].mT @ self.x
        return self.base[path] + whole if self.base else whole

    def _scale(self, g: Tensor, states: Tensor) -> Tensor | float:
        if self.rule == "sgd":
            return self.lr
        squares = ((g @ g.mT) * (states @ states.mT)).sum((1, 2))  # |dY^T X|^2
        size = (squares / (g.shape[2] * states.shape[2])).clamp(min=1e-30).sqrt()
        return self.lr / size[:, None, None]

    def _term(self, path: str, added: Tensor | None) -> Term:
        def term(x: Tensor) -> Tensor:
            rows = x.reshape(self.groups, -1, x.shape[-1])
            out = (rows @ self.x.mT) @ self.dy[path]
            if self.base:
                out = out + rows @ self.base[path].mT
            if added is not None:
                out = out + added
            return out.reshape(*x.shape[:-1], -1)

        return term


class Shared(Part):
    """One delta of each other tensor, for all concepts.

    Args:
        names: of the tensors.
        host: the denoiser.
        groups: N.
        rate: of learning.
    """

    def __init__(self, names: Sequence[str], host: Host, groups: int, rate: float) -> None:
        self.groups = groups
        self.delta = {name: torch.zeros_like(host.tensor(name)) for name in names}
        self.adam = Adam(rate)

    def variables(self, states: Tensor) -> Tensors:  # noqa: ARG002 - the same for every batch
        """The deltas."""
        return dict(self.delta)

    def change(self, variables: Mapping[str, Tensor]) -> Change:
        """As they are."""
        return Change(weights={name: variables.get(name, value) for name, value in self.delta.items()})

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:  # noqa: ARG002 - as above
        """One step of Adam, by the mean of the concepts' gradients."""
        steps = self.adam({name: g / self.groups for name, g in gradients.items()})
        self.delta = {name: value + steps[name] for name, value in self.delta.items()}

    def shared(self) -> Change:
        """All of it."""
        return self.change({})

    def state(self) -> Tensors:
        """Deltas and moments."""
        return packed({"delta": self.delta, "adam": self.adam.state()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Both."""
        groups = unpacked(state)
        self.delta = {name: groups["delta"][name] for name in self.delta}
        self.adam.restore(groups["adam"])


class Adapters(Part):
    """LoRA on every attention layer: ``x A_n B_n``, A_n sampled and B_n zero, as peft begins.

    Args:
        host: the denoiser.
        groups: N.
        rate: of learning.
        rank: of A and B.
        generator: samples A.
        rest: what counts outside of keys and values: ``merge.rest``.
    """

    def __init__(
        self, host: Host, groups: int, rate: float, rank: int, generator: torch.Generator, rest: str = "mean"
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
        """Both factors of every layer."""
        return dict(self.pairs)

    def change(self, variables: Mapping[str, Tensor]) -> Change:
        """Each group through its own."""
        pairs = {**self.pairs, **variables}
        return Change(terms={path: self._term(path, pairs) for path in self.host.projections})

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:  # noqa: ARG002 - as above
        """One step of Adam."""
        steps = self.adam(gradients)
        self.pairs = {name: value + steps[name] for name, value in self.pairs.items()}

    def shared(self) -> Change:
        """Outside of keys and values: the mean of what the adapters add, or the sum."""
        others = [path for path in self.host.projections if path not in self.host.keys_values]
        return Change(terms={path: self._together(path) for path in others})

    def read(self, rows: Tensor) -> Tensors:
        """``(T A_n B_n)^T``."""
        return {
            path: ((rows.to(self.host.work) @ self.pairs[f"a.{path}"]) @ self.pairs[f"b.{path}"]).mT
            for path in self.host.keys_values
        }

    def state(self) -> Tensors:
        """Factors and moments."""
        return packed({"pairs": self.pairs, "adam": self.adam.state()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Both."""
        groups = unpacked(state)
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


class Words(Part):
    """What is added to the states of each concept's captions, behind the start token.

    Args:
        shape: N, positions, width.
        host: the denoiser.
        rate: of learning.
    """

    def __init__(self, shape: tuple[int, int, int], host: Host, rate: float) -> None:
        self.words = torch.zeros(shape, dtype=host.work, device=host.denoiser.device)
        self.adam = Adam(rate)

    def variables(self, states: Tensor) -> Tensors:  # noqa: ARG002 - the same for every batch
        """The words."""
        return {"words": self.words}

    def change(self, variables: Mapping[str, Tensor]) -> Change:
        """As they are."""
        return Change(words=variables.get("words", self.words))

    def update(self, gradients: Mapping[str, Tensor], states: Tensor) -> None:  # noqa: ARG002 - as above
        """One step of Adam."""
        self.words = self.words + self.adam(gradients)["words"]

    def shared(self) -> Change:
        """All of it: each concept has its own words."""
        return self.change({})

    def state(self) -> Tensors:
        """Words and moments."""
        return packed({"words": {"words": self.words}, "adam": self.adam.state()})

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Both."""
        groups = unpacked(state)
        self.words = groups["words"]["words"]
        self.adam.restore(groups["adam"])
