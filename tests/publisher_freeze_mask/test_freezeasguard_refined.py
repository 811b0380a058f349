from __future__ import annotations

import pytest
import torch
from mask_cases import CANDIDATES, halves, scored, unet_case
from torch import Tensor

from publisher.api.freeze_mask import Candidate
from publisher_freeze_mask.freezeasguard import MaskSide, ascend, begin, move, project, relaxed, slope
from publisher_freeze_mask.integrated_gradients import PathScores
from publisher_freeze_mask.mixing import Delta, Loss, MixedNetwork
from publisher_freeze_mask.params import RefineParams
from publisher_freeze_mask.units import MaskBudget, Units


def units_of(place: MixedNetwork, delta: Delta) -> Units:
    return Units({n: Candidate(shape=tuple(v.shape), rows=place.rows.get(n, 0)) for n, v in delta.items()})


def lost(place: MixedNetwork, delta: Delta, units: Units, x: Tensor, loss: Loss) -> float:
    place.put(delta, units.shares(1 - relaxed(x, 0.2)))
    with torch.no_grad():
        return float(loss())


def test_the_slope_by_logits_is_a_finite_difference() -> None:
    place, delta, loss = unet_case()
    units = units_of(place, delta)
    x = torch.rand(len(units), generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.3
    m = relaxed(x, 0.2)
    _, by_m = slope(place, units, MaskSide(delta, PathScores({}, 1.0, 0.0), 1.0, [loss]), m, loss)
    by_x = by_m * m * (1 - m) / 0.2
    for turn in range(0, len(units), 3):
        ends = []
        for by in (1e-5, -1e-5):
            moved = x.clone()
            moved[turn] += by
            ends.append(lost(place, delta, units, moved, loss))
        assert float(by_x[turn]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_projection_meets_the_budget_and_keeps_the_order(share: float) -> None:
    sample = torch.Generator().manual_seed(0)
    x, weights = torch.randn(50, generator=sample).double(), torch.rand(50, generator=sample).double() * 100
    size = share * float(weights.sum())
    moved = project(x, weights, size, 0.2)
    assert float((weights * relaxed(moved, 0.2)).sum()) == pytest.approx(size, rel=1e-9)
    assert torch.equal(moved.argsort(), x.argsort())


def test_a_budget_beyond_all_units_freezes_them() -> None:
    assert bool((relaxed(project(torch.zeros(3).double(), torch.ones(3).double(), 7, 0.2), 0.2) > 0.999).all())


def test_it_begins_at_the_order_of_the_scores() -> None:
    scores = torch.tensor([3.0, -1e9, 0.5, 1e9], dtype=torch.float64)
    assert begin(scores, RefineParams()).x.tolist() == [0.5, 0.0, 0.25, 0.75]


def test_it_finds_the_half_that_illegal_data_need_from_scores_that_say_the_other() -> None:
    units, budget, (_, place) = Units(CANDIDATES), MaskBudget(12, "parameters"), halves()
    made = []
    for side, sign in (("illegal", 1.0), ("innocent", -1.0)):
        delta, path, losses = scored(place, side, 1)
        made.append(MaskSide(delta, path, sign, losses))
    at = begin(torch.tensor([0.0, 1.0], dtype=torch.float64), RefineParams(lr=0.05))
    assert set(units.top(at.x.detach(), budget)) == {"right"}
    for done in range(20):
        lost_shares = ascend(place, units, (made[0], made[1]), budget, at, done=done, temperature=0.2)
        move(units, budget, at, 0.2)
    assert set(units.top(at.x.detach(), budget)) == {"left"}
    assert lost_shares[0] > 0.8
    assert lost_shares[1] < 0.2
    assert all(torch.equal(tensor, place.read(name)) for name, tensor in place.parameters.items())
