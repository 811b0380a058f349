"""The equations of ``mima.py`` and ``imma.py``, on cases that are solved by hand or by autograd."""

from __future__ import annotations

import pytest
import torch
from denoising_cases import seeded

from publisher_immunize.imma import ascend
from publisher_immunize.mima import added, delta, follow, inner_step, weighted


def factors() -> tuple[torch.Tensor, torch.Tensor]:
    """Return texts ``(2, 3, 5)`` and gradients ``(2, 3, 4)`` of two concepts."""
    generator = seeded(1)
    return tuple(torch.randn(2, 3, width, generator=generator, dtype=torch.float64) for width in (5, 4))  # type: ignore[return-value]


def test_a_step_is_that_of_plain_gradient_descent_on_the_weight() -> None:
    states, wanted = factors()
    weight = torch.randn(4, 5, generator=seeded(2), dtype=torch.float64, requires_grad=True)
    out = states[0] @ weight.T
    (by_weight,) = torch.autograd.grad((out * wanted[0]).sum(), weight)
    step = inner_step(wanted, states, 0.1, normalised=False)
    torch.testing.assert_close(delta(states, step)[0], -0.1 * by_weight)


def test_a_normalised_step_moves_entries_by_the_rate_in_root_mean_square() -> None:
    states, gradient = factors()
    step = inner_step(gradient, states, 0.1, normalised=True)
    sizes = delta(states, step).square().mean((1, 2)).sqrt()
    torch.testing.assert_close(sizes, torch.full_like(sizes, 0.1))


def test_factors_add_what_the_matrix_adds() -> None:
    states, dy = factors()
    rows = torch.randn(2, 7, 5, generator=seeded(3), dtype=torch.float64)
    torch.testing.assert_close(added(rows, states, dy), rows @ delta(states, dy).mT)


def test_following_the_weight_changes_the_gradient_and_not_the_value() -> None:
    generator = seeded(4)
    a, weight, rows = (torch.randn(*shape, generator=generator) for shape in ((4, 2), (4, 5), (2, 5)))
    weight.requires_grad_()
    followed = follow(a, weight, rows)
    assert followed.equal(a)
    by_a = torch.randn(4, 2, generator=generator)
    (by_weight,) = torch.autograd.grad((followed * by_a).sum(), weight)
    torch.testing.assert_close(by_weight, by_a @ rows)


def test_the_objective_is_a_weighted_sum() -> None:
    assert float(weighted([2.0, 0.5], [torch.tensor(3.0), torch.tensor(4.0)])) == 8.0


@pytest.mark.parametrize(("bound", "wanted"), [(None, [[-0.5, -2.0]]), (1.0, [[0.5, 0.0]])])
def test_a_row_above_the_bound_is_left_alone(bound: float | None, wanted: list[list[float]]) -> None:
    assert ascend(torch.tensor([[0.5, 2.0]]), bound).tolist() == wanted
