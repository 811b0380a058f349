from __future__ import annotations

import pytest
import torch
from erase_cases import edited, random_rows, random_weights, worst
from erase_naive import uce_layer
from torch import Tensor

from publisher_erase.uce import LowRank, Rows, dual_map, edit_map, edit_weight, edit_writer, primal_map


def f64(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


ONE = torch.ones(1, dtype=torch.float64)
X, Y = f64([1.0, 0.0]), f64([0.0, 1.0])
NOTHING = (torch.zeros(0, 2, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))


@pytest.mark.parametrize(("m", "r"), [(1, 0), (2, 3), (6, 1), (9, 20)])
@pytest.mark.parametrize(("lam", "e", "p"), [(0.5, 1.0, 1.0), (0.01, 2.0, 0.1), (3.0, 0.7, 10.0)])
def test_one_map_for_all_layers_equals_the_published_formula_of_each_layer(
    m: int, r: int, lam: float, e: float, p: float
) -> None:
    rows, weights = random_rows(m, r, 12), random_weights(12)
    wanted = [uce_layer(weight, rows, lam, e, p) for weight in weights]
    assert worst(edited(weights, edit_map(rows, lam, e, p)), wanted) < 1e-9


@pytest.mark.parametrize(("m", "r"), [(2, 3), (9, 20)])
def test_both_systems_give_the_same_map(m: int, r: int) -> None:
    rows = random_rows(m, r, 12)
    torch.testing.assert_close(primal_map(rows, 0.1, 1.0, 2.0).dense(), dual_map(rows, 0.1, 1.0, 2.0).dense())


def test_one_row_solved_by_hand() -> None:
    """Solve by hand: c = x, g = y, nothing kept: A = diag(lam + 1, lam), T = I + (y - x) x^T / (lam + 1)."""
    found = edit_map(Rows(X, Y, ONE, *NOTHING), lam=1.0).dense()
    torch.testing.assert_close(found, f64([0.5, 0.0], [0.5, 1.0]))


def test_a_retained_row_halves_the_same_edit_by_hand() -> None:
    """Solve by hand: c = r = x: A = diag(lam + 2, lam), T = I + (y - x) x^T / (lam + 2)."""
    found = edit_map(Rows(X, Y, ONE, X, ONE), lam=2.0).dense()
    torch.testing.assert_close(found, f64([0.75, 0.0], [0.25, 1.0]))


def test_the_scales_enter_where_the_objective_has_them() -> None:
    """Count e = 3 and w = 2 together 6 times: T = I + 6 (y - x) x^T / (lam + 6)."""
    found = edit_map(Rows(X, Y, 2 * ONE, *NOTHING), lam=6.0, e=3.0).dense()
    torch.testing.assert_close(found, f64([0.5, 0.0], [0.5, 1.0]))


def test_lambda_to_infinity_leaves_the_weights() -> None:
    weights = random_weights(12)
    assert worst(edited(weights, edit_map(random_rows(4, 5, 12), lam=1e12)), weights) < 1e-9


def test_lambda_to_zero_maps_every_concept_to_its_target() -> None:
    rows = random_rows(4, 3, 12)
    found = edit_map(rows, lam=1e-12)
    torch.testing.assert_close(found.rows(rows.concepts), rows.targets)


def test_what_is_retained_is_kept_exactly_in_the_limit() -> None:
    rows = random_rows(4, 5, 12)
    found = edit_map(rows, lam=0.1, p=1e12)
    torch.testing.assert_close(found.rows(rows.retain), rows.retain)


def test_erase_scale_zero_changes_nothing() -> None:
    rows = random_rows(4, 5, 12)
    torch.testing.assert_close(edit_map(rows, lam=0.1, e=0.0).rows(rows.concepts), rows.concepts)


def test_a_weight_equals_that_many_copies_of_the_row() -> None:
    rows = random_rows(1, 2, 6)
    three = torch.full((1,), 3.0, dtype=torch.float64)
    weighted = Rows(rows.concepts, rows.targets, three, rows.retain, rows.v)
    copies = Rows(
        rows.concepts.expand(3, -1), rows.targets.expand(3, -1), torch.ones_like(three).expand(3), rows.retain, rows.v
    )
    torch.testing.assert_close(edit_map(weighted, 0.3).dense(), edit_map(copies, 0.3).dense())


@pytest.mark.parametrize("scales", [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)])
def test_scales_outside_their_range_are_refused(scales: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="lam must be above 0"):
        edit_map(random_rows(1, 1, 4), *scales)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scales_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        edit_map(random_rows(1, 1, 4), 1.0, 1.0, bad)


def test_composition_is_the_product_of_the_maps() -> None:
    first, second = edit_map(random_rows(2, 1, 7), 0.2), edit_map(random_rows(3, 1, 7, seed=5), 0.2)
    torch.testing.assert_close(first.then(second).dense(), first.dense() @ second.dense())


@pytest.mark.parametrize("k", [1, 3, 4, 9])
def test_low_rank_and_dense_factors_give_the_same_weights(k: int) -> None:
    noise = torch.Generator().manual_seed(0)
    edit = LowRank(
        torch.randn(6, k, generator=noise, dtype=torch.float64), torch.randn(k, 6, generator=noise, dtype=torch.float64)
    )
    weight = random_weights(6)[0]
    torch.testing.assert_close(edit_weight(weight, edit.factors()), weight @ edit.dense())
    assert len(edit.factors()) == (2 if k <= 3 else 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_weight_keeps_its_dtype_and_is_rounded_once(dtype: torch.dtype) -> None:
    edit = edit_map(random_rows(3, 4, 12), 0.1)
    weight = random_weights(12)[0].to(dtype)
    found = edit_weight(weight, edit.factors())
    assert found.dtype == dtype
    wanted = weight.double() @ edit.dense()
    limit = max(torch.finfo(dtype).eps, 1e-15) * (1 if dtype.itemsize == 2 else 16)
    assert float((found.double() - wanted).abs().max() / wanted.abs().max()) <= limit


def test_the_same_rows_give_the_same_bytes() -> None:
    first, second = (edit_map(random_rows(4, 30, 12), 0.1) for _ in range(2))
    assert torch.equal(first.u, second.u)
    assert torch.equal(first.v, second.v)


def test_the_identity_map_changes_nothing() -> None:
    weight = random_weights(6)[0]
    assert torch.equal(edit_weight(weight, LowRank.identity(6, weight).factors()), weight)


@pytest.mark.parametrize("k", [1, 5], ids=["two factors", "their product"])
def test_the_layer_before_writes_the_mapped_rows_once_weight_and_bias_are_edited(k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    w, b, x, u, v = (
        torch.randn(*shape, dtype=torch.float64, generator=generator)
        for shape in ((6, 4), (6,), (3, 4), (6, k), (k, 6))
    )
    edit = LowRank(u, v)
    assert len(edit.factors()) == (2 if k == 1 else 1)
    found = x @ edit_writer(w, edit.factors()).T + edit_writer(b, edit.factors())
    torch.testing.assert_close(found, edit.rows(x @ w.T + b))
