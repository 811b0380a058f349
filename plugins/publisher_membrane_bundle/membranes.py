"""Membranes while they are trained: k concepts on all layers of one denoiser that carry a branch.

The equations are in ``spm.py``; here is what makes them fast. All factors of all layers are views of one flat float32
vector, layer by layer, so that one fused optimizer call updates them. Its gradient is written by :class:`_Branch`
itself, not by autograd: the gradient of a view would be a vector as long as all of them. Over a denoiser in half
precision, factors are cast once a forward and multiplied in its dtype (matrix products add up in float32); parameters,
gradients and optimizer stay float32.

Layers are found by their type and the family's names, not by class name (other versions of diffusers wrap these layers
in classes of other names, and a search by name then trains nothing), and compared with what the weights' headers say.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from publisher.api import Anatomy, ModelError
from publisher.api.membranes import Branch, Host
from publisher_membrane_bundle.spm import Gate, regulated, regulated_gradient

Layer = nn.Linear | nn.Conv2d


def find_layers(denoiser: nn.Module, anatomy: Anatomy) -> dict[str, Layer]:
    """Return every Linear and 1x1 convolution that the family names as a host, in the order of their paths."""
    hosts = re.compile(anatomy.hosts)
    named = ((path, layer) for path, layer in denoiser.named_modules() if hosts.fullmatch(f"{path}.weight"))
    return dict(sorted((path, layer) for path, layer in named if _carries(layer)))


def match_hosts(denoiser: nn.Module, hosts: Mapping[str, Host], anatomy: Anatomy) -> dict[str, Layer]:
    """Return the layer of each host that the headers name, by stem, in their order.

    Args:
        denoiser: the loaded network.
        hosts: of the headers, by stem.
        anatomy: of the model.

    Raises:
        ModelError: the network has other layers, or other shapes.
    """
    layers = find_layers(denoiser, anatomy)
    expected = {host.module: host.shape for host in hosts.values()}
    found = {path: tuple(layer.weight.shape) for path, layer in layers.items()}
    if found != expected:
        odd = min(set(found.items()) ^ set(expected.items()))[0]
        raise ModelError(
            f"the loaded denoiser has {len(found)} layers that can carry a membrane, its files {len(expected)}",
            where=odd,
            hint="The layers may be wrapped by an adapter; save the plain model.",
        )
    return {stem: layers[host.module] for stem, host in hosts.items()}


def _carries(layer: nn.Module) -> TypeGuard[Layer]:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


class Membranes:
    """K membranes of one rank on a denoiser, shut unless :meth:`open`.

    Args:
        layers: stem -> layer that carries a branch.
        concepts: names of the k concepts.
        rank: rank of each branch.
        alpha: number; a branch is scaled by alpha / rank.
        device: device of the factors.
    """

    def __init__(
        self, layers: Mapping[str, Layer], concepts: Sequence[str], rank: int, alpha: float, device: torch.device
    ) -> None:
        self.layers, self.concepts = dict(layers), tuple(concepts)
        self.rank, self.alpha = rank, alpha
        sizes = [rank * len(concepts) * sum(layer.weight.shape[:2]) for layer in layers.values()]
        self.flat = nn.Parameter(torch.zeros(sum(sizes), device=device))
        self.flat.grad = torch.zeros_like(self.flat)
        self.factors = self._views(self.flat.detach())
        self._gradients = self._views(self.flat.grad)
        self._permeability = _Permeability()
        self._spare: dict[str, Tensor] = {}

    def sample(self, index: int, generator: torch.Generator) -> None:
        """Begin membrane ``index``: down ~ U(-1/sqrt(n), 1/sqrt(n)), host by host; up = 0, so that nothing changes."""
        for down, up in self.factors.values():
            bound = down.shape[2] ** -0.5
            down[index] = torch.empty(down.shape[1:]).uniform_(-bound, bound, generator=generator).to(down.device)
            up[index] = 0

    def branches(self, index: int) -> dict[str, Branch]:
        """Return the branches of membrane ``index`` by stem, copied to the CPU."""
        return {
            stem: Branch(
                down[index].to("cpu", copy=True),
                up[index].T.contiguous().to("cpu", copy=True),
                self.alpha,
                isinstance(self.layers[stem], nn.Conv2d),
            )
            for stem, (down, up) in self.factors.items()
        }

    def zero_grad(self) -> None:
        """Forget the gradients, before a backward that adds to them."""
        self.scale_grad(0)

    def scale_grad(self, factor: float) -> None:
        """Multiply the gradients."""
        if self.flat.grad is not None and factor != 1:
            self.flat.grad.mul_(factor) if factor else self.flat.grad.zero_()

    def per_membrane(self, vector: Tensor) -> list[list[Tensor]]:
        """Return the parts of a flat vector that belong to each membrane."""
        views = self._views(vector)
        return [[part[i] for pair in views.values() for part in pair] for i in range(len(self.concepts))]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Attach the branches to the layers; afterwards the layers are as they were."""
        for stem, layer in self.layers.items():
            layer.forward = partial(self._forward, stem, layer, layer.forward)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self.layers.values():
                del layer.forward

    @contextmanager
    def open(self, gates: Tensor | None = None) -> Iterator[None]:
        """Open the membranes inside, in this thread alone.

        Args:
            gates: permeabilities ``(B, k)``; None: 1 for every row and membrane.
        """
        scale = self.alpha / self.rank
        dtype = next(iter(self.layers.values())).weight.dtype
        used = self.factors if dtype == self.flat.dtype else self._views(self.flat.detach().to(dtype))
        if gates is None or bool((gates == 1).all()):
            gate: Gate = scale
        else:
            gate = (scale * gates).repeat_interleave(self.rank, 1)[:, None, :].to(self.flat.device, dtype)
        self._permeability.used, self._permeability.gate = used, gate
        try:
            yield
        finally:
            self._permeability.used, self._permeability.gate = {}, None

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Add all membranes to the weights inside, in a second buffer: no branch to compute, nothing to round back.

        Only over float32 weights: half precision would round a young membrane away.
        """
        kept = {stem: layer.weight.data for stem, layer in self.layers.items()}
        scale = self.alpha / self.rank
        try:
            for stem, layer in self.layers.items():
                down, up = (part.flatten(0, 1) for part in self.factors[stem])
                spare = self._spare.setdefault(stem, torch.empty_like(kept[stem]))
                torch.addmm(kept[stem].flatten(1), up.T, down, alpha=scale, out=spare.flatten(1))
                layer.weight.data = spare
            yield
        finally:
            for stem, weight in kept.items():
                self.layers[stem].weight.data = weight

    @property
    def foldable(self) -> bool:
        """Whether :meth:`folded` loses nothing."""
        return all(layer.weight.dtype == torch.float32 for layer in self.layers.values())

    def _views(self, flat: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        views, start = {}, 0
        for stem, layer in self.layers.items():
            m, n = layer.weight.shape[:2]
            pair = []
            for width in (n, m):
                stop = start + len(self.concepts) * self.rank * width
                pair.append(flat[start:stop].view(len(self.concepts), self.rank, width))
                start = stop
            views[stem] = (pair[0], pair[1])
        return views

    def _forward(self, stem: str, layer: Layer, plain: Any, x: Tensor) -> Tensor:
        gate = self._permeability.gate
        if gate is None:
            return plain(x)
        down, up = self._permeability.used[stem]
        host = (layer.weight.flatten(1), layer.bias, down.flatten(0, 1), up.flatten(0, 1))
        if not isinstance(layer, nn.Conv2d):
            return _Branch.apply(x, self.flat, gate, host, self._gradients[stem])
        rows = x.flatten(2).transpose(1, 2)
        y = _Branch.apply(rows, self.flat, gate, host, self._gradients[stem])
        return y.transpose(1, 2).contiguous().unflatten(2, x.shape[2:])  # else convolutions copy their weights


class _Permeability(threading.local):
    """The state of one thread: another one may run the shut denoiser meanwhile."""

    gate: Gate | None = None
    """s times the permeabilities; None: shut."""
    used: Mapping[str, tuple[Tensor, Tensor]] = MappingProxyType({})
    """Factors of each layer, in the denoiser's dtype."""


class _Branch(torch.autograd.Function):
    """A frozen linear layer and its open branches: (forward) and (backward) of ``spm.py``, for x ``(B, L, n)``.

    ``flat`` is an argument only so that autograd calls backward; what it would get goes to ``gradients``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        _flat: Tensor,
        gate: Gate,
        host: tuple[Tensor, Tensor | None, Tensor, Tensor],
        gradients: tuple[Tensor, Tensor],
    ) -> Tensor:
        weight, bias, down, up = host
        y = F.linear(x, weight, bias)
        h = regulated(x, down, gate)
        y.view(-1, y.shape[-1]).addmm_(h.view(-1, h.shape[-1]), up)
        ctx.save_for_backward(x, h)
        ctx.gate, ctx.host, ctx.gradients = gate, host, gradients
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x, h = ctx.saved_tensors
        weight, _, down, up = ctx.host
        to_down, to_up = (part.flatten(0, 1) for part in ctx.gradients)
        dy = grads[0].reshape(-1, weight.shape[0])
        dh = regulated_gradient(dy, up, ctx.gate, h.shape).view(-1, h.shape[-1])
        _add_product(to_up, h.view(dh.shape).T, dy)
        _add_product(to_down, dh.T, x.reshape(-1, x.shape[-1]))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        dx = (dy @ weight).addmm_(dh, down)
        return dx.view(x.shape), None, None, None, None


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b
