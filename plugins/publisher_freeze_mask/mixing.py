"""A network moved between two sets of weights, in place: the mixed weights of FreezeAsGuard (arXiv 2405.17472).

    theta(m)_i = m_i theta_pre,i + (1 - m_i) theta_ft,i = theta_pre,i + (1 - m_i) delta_i

    paper              here          shape
    theta_pre          ``read``      of each tensor; read when needed, so that there is no second model in memory
    theta_ft           read + delta
    theta_ft-theta_pre ``Delta``     float32, or the network's type where it is wider
    1 - m_i            share         () or (u,): of the tensor, or of each of its u units
    <delta_i, g_i>     ``Slopes``    (u,) float64

A unit is a number of rows of the first axis (``rows``; 0: the whole tensor).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

Delta = Mapping[str, Tensor]
"""Name -> tensor that a fine-tuning adds."""
Slopes = dict[str, Tensor]
"""Name -> a number for each unit, ``(u,)`` float64."""
Shares = Mapping[str, Tensor]
"""Name -> share of the way to theta_ft of each unit, ``(u,)``."""
Loss = Callable[[], Tensor]
"""Function that returns a scalar of the network as it is."""


class MixedNetwork:
    """A network whose weights are mixed from theta_pre and theta_ft.

    Args:
        network: network whose tensors are written.
        read: name -> theta_pre's tensor, on any device.
        rows: name -> number of rows of a unit; 0, or not named: the whole tensor.
    """

    def __init__(self, network: nn.Module, read: Callable[[str], Tensor], rows: Mapping[str, int]) -> None:
        self.network, self.read, self.rows = network, read, rows
        self.parameters = dict(network.named_parameters())
        self._moved: set[str] = set()

    def put(self, delta: Delta, share: float | Shares) -> None:
        """Move to ``theta_pre + share * delta``; where a share is 0, bit-equal to theta_pre.

        Args:
            delta: tensors to add; what it does not name stays where it is.
            share: one number for all, or one for each unit; tensors that are not named go all the way.
        """
        self.moving(delta)
        for name, change in delta.items():
            target = self.parameters[name]
            before = self.read(name).to(target.device, target.dtype)
            wanted = share if isinstance(share, float) else share.get(name, 1.0)
            part = self._spread(name, wanted, target)
            with torch.no_grad():
                target.copy_(torch.where(part == 0, before, before + part * change))

    def moving(self, names: Iterable[str]) -> None:
        """Note that other code is about to write these tensors: :meth:`back` puts them back too."""
        self._moved |= set(names)

    def back(self) -> None:
        """Put theta_pre's tensors back, bit-equal."""
        for name in sorted(self._moved):
            with torch.no_grad():
                self.parameters[name].copy_(self.read(name))
        self._moved.clear()

    def delta(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the difference of the network from theta_pre, in float32 at least."""
        found = {}
        for name in names:
            here = self.parameters[name].detach()
            wide = torch.promote_types(here.dtype, torch.float32)
            found[name] = here.to(wide) - self.read(name).to(here.device, wide)
        return found

    def slopes(self, delta: Delta, loss: Loss) -> tuple[float, Slopes]:
        """Return the loss here, and ``<delta_i, dL/dtheta_i>`` of each unit, by one backward.

        A gradient is summed up and dropped as soon as it is there, so there are never two of them.
        """
        found: Slopes = {}

        def take(name: str) -> Callable[[Tensor], None]:
            def hook(parameter: Tensor) -> None:
                if parameter.grad is not None:
                    found[name] = self.sums(name, delta[name] * parameter.grad)
                    parameter.grad = None

            return hook

        self.network.requires_grad_(requires_grad=False)
        chosen = {name: self.parameters[name].requires_grad_() for name in delta}
        handles = [tensor.register_post_accumulate_grad_hook(take(name)) for name, tensor in chosen.items()]
        try:
            value = loss()
            value.backward()
        finally:
            for handle in handles:
                handle.remove()
            self.network.requires_grad_(requires_grad=False)
        nothing = {name: self.sums(name, torch.zeros_like(delta[name])) for name in delta if name not in found}
        return float(value.detach()), {**found, **nothing}

    def sums(self, name: str, values: Tensor) -> Tensor:
        """Return the sum over each unit, ``(u,)`` float64 on the CPU."""
        step = self.rows.get(name, 0)
        if not step or not values.dim():
            return values.double().sum().reshape(1).cpu()
        lines = values.double().reshape(len(values), -1).sum(1).cpu()
        return torch.stack([part.sum() for part in lines.split(step)])

    def _spread(self, name: str, share: float | Tensor, like: Tensor) -> Tensor:
        """Return the share of each element, ready to be multiplied with the tensor."""
        values = torch.as_tensor(share, dtype=like.dtype, device=like.device).reshape(-1)
        step = self.rows.get(name, 0)
        if len(values) == 1 or not step:
            return values.reshape(())
        return values.repeat_interleave(step)[: len(like)].reshape(-1, *(1,) * (like.dim() - 1))
