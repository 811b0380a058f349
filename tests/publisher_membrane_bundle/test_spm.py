"""The equations of ``spm.py``, on cases that are solved by hand or by autograd."""

from __future__ import annotations

import pytest
import torch

from publisher_membrane_bundle.spm import (
    anchoring,
    erasing_goal,
    gaussian_anchor,
    mean_square,
    regulated,
    regulated_gradient,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_target_is_pushed_beyond_the_surrogate() -> None:
    goal = erasing_goal(torch.tensor([1.0]), torch.tensor([3.0]), 0.5)
    assert goal.tolist() == [0.0]
    assert float(mean_square(goal, torch.tensor([2.0]))) == 4.0


def test_anchors_count_by_their_weight() -> None:
    opened, frozen = [torch.tensor([1.0]), torch.tensor([2.0])], [torch.tensor([0.0]), torch.tensor([0.0])]
    assert float(anchoring(opened, frozen, [0.75, 0.25])) == 0.75 * 1 + 0.25 * 4


def test_the_gradients_of_a_branch_are_those_of_autograd() -> None:
    generator = seeded(0)
    x, down, up = (torch.randn(*shape, generator=generator).double() for shape in ((2, 3, 5), (4, 5), (4, 6)))
    gate = torch.tensor([1.0, 0.0]).double().repeat_interleave(4).view(2, 1, 4)
    dy = torch.randn(2, 3, 6, generator=generator).double()
    h = (x @ down.T * gate).requires_grad_()
    before = (x @ down.T).requires_grad_()
    (wanted,) = torch.autograd.grad((before * gate @ up * dy).sum(), before)
    assert regulated(x, down, gate).equal(h.detach())
    torch.testing.assert_close(regulated_gradient(dy.reshape(-1, 6), up, gate, h.shape), wanted)


@pytest.mark.parametrize("seed", [0, 1])
def test_an_anchor_has_nearly_the_length_of_the_target(seed: int) -> None:
    target = torch.randn(1, 7, 16, generator=seeded(9))
    anchor = gaussian_anchor(target, seeded(seed))
    assert anchor.shape == target.shape
    assert 0.8 <= float(anchor.norm() / target.norm()) <= 1.2
    assert anchor.equal(gaussian_anchor(target, seeded(seed)))
