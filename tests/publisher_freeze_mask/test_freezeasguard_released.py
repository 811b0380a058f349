from __future__ import annotations

import functools

import pytest
import torch
from mask_cases import CANDIDATES, halves
from torch import Tensor

from publisher.api.freeze_mask import Candidate, Frozen, jaccard
from publisher_freeze_mask.freezeasguard import penalty_slope, relaxed, released
from publisher_freeze_mask.mixing import Loss, MixedNetwork
from publisher_freeze_mask.params import ReleasedParams
from publisher_freeze_mask.units import MaskBudget, Units

COUNT = 686
"""Tensors of Stable Diffusion 1.5's denoiser; how far the penalty throws a logit depends on it."""


class Many(torch.nn.Module):
    """Illegal data are read by the first half of its tensors, innocent ones by the others."""

    def __init__(self) -> None:
        super().__init__()
        sample = torch.Generator().manual_seed(0)
        for i in range(COUNT):
            value = 0.03 * torch.randn(2, generator=sample, dtype=torch.float64)
            self.register_parameter(f"t{i:03}", torch.nn.Parameter(value))

    def loss(self, first: int, noise: Tensor) -> Tensor:
        """Return the loss of one half."""
        chosen = list(self.parameters())[first : first + COUNT // 2]
        return torch.stack([(one - 0.05 + noise).square().mean() for one in chosen]).mean()


@functools.cache
def ran(
    seed: int, *, swapped: bool = False, steps: int = 6, user_lr: float = 1e-5
) -> tuple[Frozen, Frozen, Tensor, MixedNetwork]:
    """Return initial and final mask, the final x, and the network. Do not change them."""
    network = Many()
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    place = MixedNetwork(network, before.__getitem__, {})
    units = Units({name: Candidate(shape=(2,)) for name in before})
    noise = torch.Generator().manual_seed(4)

    def sample() -> tuple[Loss, Loss]:
        first = 0.01 * torch.randn(2, generator=noise, dtype=torch.float64)
        ends = (COUNT // 2, 0) if swapped else (0, COUNT // 2)
        losses = [lambda start=start: network.loss(start, first) for start in ends]
        return (lambda: (losses[1]() - losses[0]()) / 2), (lambda: (losses[1]() + losses[0]()) / 2)

    delta = {name: 0.05 - value for name, value in before.items()}
    start, x = released(
        place,
        units,
        delta,
        sample,
        rho=0.3,
        params=ReleasedParams(steps=steps, user_lr=user_lr),
        generator=torch.Generator().manual_seed(seed),
    )
    size = MaskBudget(int((x > 0).sum()), "tensors")
    return units.top(start, size), units.top(x, size), x, place


def test_its_mask_is_its_initialisation() -> None:
    start, end, x, _ = ran(0)
    assert start == end
    assert 0.2 < int((x > 0).sum()) / COUNT < 0.4


@pytest.mark.slow
def test_exchanging_the_sides_changes_nothing_and_another_seed_nearly_everything() -> None:
    candidates = {f"t{i:03}": Candidate(shape=(2,)) for i in range(COUNT)}
    mask = ran(0)[1]
    assert jaccard(mask, ran(0, swapped=True)[1], candidates) == 1
    assert jaccard(mask, ran(1)[1], candidates) < 0.5


def test_the_network_is_put_back_bit_for_bit() -> None:
    place = ran(0)[3]
    assert all(torch.equal(tensor, place.read(name)) for name, tensor in place.parameters.items())


def test_the_penalty_pulls_the_mean_to_the_ratio() -> None:
    m = torch.tensor([0.2, 0.8], dtype=torch.float64).requires_grad_()
    (5.0 * (0.3 - m.mean()) ** 2).backward()  # type: ignore[no-untyped-call]
    assert m.grad is not None
    torch.testing.assert_close(penalty_slope(m.detach(), 0.3, 5.0), m.grad)


def test_without_a_penalty_a_step_follows_the_data() -> None:
    """Solve by hand: x + eta <theta_ft - theta_pre, g> m(1-m)/T."""
    network, place = halves()
    units = Units(CANDIDATES)
    delta = {name: torch.ones(4, 3, dtype=torch.float64) for name in CANDIDATES}
    losses: tuple[Loss, Loss] = (lambda: -network.left.sum(), network.left.sum)
    start, x = released(
        place,
        units,
        delta,
        lambda: losses,
        rho=0.3,
        params=ReleasedParams(steps=1, c_sparsity=0.0, mask_lr=2.0),
        generator=torch.Generator().manual_seed(0),
    )
    m = relaxed(start, 0.2)
    wanted = start + 2.0 * torch.tensor([-12.0, 0.0]).double() * m * (1 - m) / 0.2
    torch.testing.assert_close(x, wanted)


def test_the_simulated_user_hardly_moves() -> None:
    """Compare with and without plain SGD at 1e-5: x is the same but for 1e-4."""
    busy, idle = ran(0)[2], ran(0, user_lr=0.0)[2]
    assert not torch.equal(busy, idle)
    torch.testing.assert_close(busy, idle, rtol=0, atol=1e-4)
