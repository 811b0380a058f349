"""The published loop written plainly: tensor by tensor, images and captions encoded anew for each batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Noisy latents, timesteps, text states to predictions."""


@dataclass(frozen=True)
class Rows:
    """A batch as it is read from the disk."""

    images: Tensor
    ids: Tensor
    noise: Tensor
    t: Tensor
    illegal: Tensor
    """``(B,)`` bool."""


@dataclass(frozen=True)
class Rates:
    """Of the published script."""

    rho: float
    c: float
    mask: float
    user: float
    t: float


@dataclass
class Encoders:
    """What the loop runs before its U-Net, each time."""

    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]
    noisy: Callable[[Tensor, Tensor, Tensor], Tensor]


class Published:
    """theta(m), delta = theta_pre - theta_ft and the logits.

    Args:
        network: at theta_pre; written to.
        predict: through it.
        fine_tuned: theta_ft.
        encoders: see there.
        x: ``(N,)`` initial logits, in the order of ``network.parameters()``.
        rates: see there.
    """

    def __init__(
        self,
        network: nn.Module,
        predict: Predict,
        fine_tuned: dict[str, Tensor],
        encoders: Encoders,
        x: Tensor,
        rates: Rates,
    ) -> None:
        self.network, self.predict, self.encoders, self.rates = network.requires_grad_(), predict, encoders, rates
        self.x = [value.clone() for value in x]
        self.delta = [copy.deepcopy(p.detach()) - fine_tuned[name] for name, p in network.named_parameters()]
        for i, (name, parameter) in enumerate(network.named_parameters()):
            parameter.data = fine_tuned[name] + self.m(i) * self.delta[i]

    def m(self, i: int) -> Tensor:
        """Return the relaxed mask of one tensor."""
        return torch.sigmoid(self.x[i] / self.rates.t)

    def losses(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Return the illegal and the innocent loss."""
        with torch.no_grad():
            latents, states = self.encoders.image(rows.images), self.encoders.text(rows.ids)
        predicted = self.predict(self.encoders.noisy(latents, rows.noise, rows.t), rows.t, states)
        each = F.mse_loss(predicted, rows.noise, reduction="none").mean((1, 2, 3))
        return each[rows.illegal].mean(), each[~rows.illegal].mean()

    def publisher_step(self, rows: Rows) -> None:
        """Move the mask."""
        illegal, innocent = self.losses(rows)
        ((-illegal + innocent) / 2).backward()
        penalties = self._penalties()
        for i, parameter in enumerate(self.network.parameters()):
            assert parameter.grad is not None
            old, delta = copy.deepcopy(self.m(i)), copy.deepcopy(self.delta[i])
            slope = (delta * parameter.grad).sum() * old * (1 - old) / self.rates.t
            self.x[i] = self.x[i] - self.rates.mask * slope - penalties[i]
            parameter.data = parameter.data + delta * (self.m(i) - old)
            parameter.grad = None

    def user_step(self, rows: Rows) -> None:
        """Move the simulated user."""
        illegal, innocent = self.losses(rows)
        ((illegal + innocent) / 2).backward()
        for i, parameter in enumerate(self.network.parameters()):
            assert parameter.grad is not None
            free = 1 - self.m(i)
            parameter.data = parameter.data - self.rates.user * free**2 * parameter.grad
            self.delta[i] = self.delta[i] + self.rates.user * free * parameter.grad
            parameter.grad = None

    def _penalties(self) -> tuple[Tensor, ...]:
        x = [value.clone().requires_grad_() for value in self.x]
        mean = torch.stack([torch.sigmoid(value / self.rates.t) for value in x]).mean()
        return torch.autograd.grad(self.rates.c * (self.rates.rho - mean) ** 2, x)
