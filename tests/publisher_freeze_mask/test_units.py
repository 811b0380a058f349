from __future__ import annotations

import pytest
import torch
from mask_cases import CANDIDATES

from publisher.api.freeze_mask import Candidate, count
from publisher_freeze_mask.integrated_gradients import PathScores
from publisher_freeze_mask.units import MaskBudget, Units, worth

MANY = {f"t{i:02}": Candidate(shape=(i + 1, 3)) for i in range(20)} | {"rows": Candidate(shape=(5, 2), rows=2)}
TOTAL = sum(one.parameters for one in MANY.values())


def sampled(units: Units) -> torch.Tensor:
    return torch.rand(len(units), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7])
def test_a_budget_of_parameters_is_met_to_one_unit(ratio: float) -> None:
    units = Units(MANY)
    mask = units.top(sampled(units), units.budget(ratio, "parameters", TOTAL))
    smallest = float(units.sizes[units.marked(mask) == 0].min())
    assert ratio * TOTAL - smallest < count(mask, MANY) <= ratio * TOTAL


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.7])
def test_a_budget_of_tensors_is_met_to_one_unit(ratio: float) -> None:
    units = Units(MANY)
    mask = units.top(sampled(units), units.budget(ratio, "tensors", TOTAL))
    assert int(units.marked(mask).sum()) == int(ratio * len(units))


def test_a_budget_beyond_the_candidates_freezes_all_of_them() -> None:
    units = Units(MANY)
    assert count(units.top(sampled(units), units.budget(1.0, "parameters", 10 * TOTAL)), MANY) == TOTAL


def test_a_vector_and_its_names_are_the_same_thing() -> None:
    units = Units(MANY)
    values = sampled(units)
    assert torch.equal(units.vector(units.shares(values)), values)
    assert units.sizes.sum() == TOTAL


def test_what_has_no_score_counts_as_zero() -> None:
    assert Units(CANDIDATES).vector({"right": torch.ones(1, dtype=torch.float64)}).tolist() == [0, 1]


def test_density_prefers_what_is_worth_most_for_its_size() -> None:
    units = Units({"big": Candidate(shape=(100, 1)), "small": Candidate(shape=(2, 1))})
    scores, budget = torch.tensor([1.0, 0.5], dtype=torch.float64), MaskBudget(100, "parameters")
    assert set(units.top(units.rank(scores, budget, "density"), budget)) == {"small"}
    assert set(units.top(units.rank(scores, budget, "score"), budget)) == {"big"}
    by_count = MaskBudget(1, "tensors")
    assert set(units.top(units.rank(scores, by_count, "density"), by_count)) == {"big"}


def test_worth_compares_shares_of_what_each_side_gained() -> None:
    units = Units(CANDIDATES)
    much = PathScores({"left": torch.tensor([8.0]), "right": torch.tensor([2.0])}, 20.0, 10.0)
    little = PathScores({"left": torch.tensor([0.1]), "right": torch.tensor([0.3])}, 1.0, 0.6)
    found = worth(units, [much], [little], 1.0)
    assert found.tolist() == pytest.approx([0.8 - 0.25, 0.2 - 0.75])
    assert worth(units, [much], [little], 0.0).tolist() == pytest.approx([0.8, 0.2])


def test_a_fine_tuning_that_gained_nothing_has_no_shares() -> None:
    with pytest.raises(ArithmeticError):
        worth(Units(CANDIDATES), [PathScores({}, 1.0, 1.0)], [PathScores({}, 1.0, 0.5)], 1.0)
