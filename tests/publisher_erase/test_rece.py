from __future__ import annotations

import pytest
import torch
from erase_cases import edited, random_rows, random_weights, worst
from erase_naive import adversarial_row, rece_layers, uce_layer

from publisher_erase.rece import adversarial_rows, erase_map, gram, thin_rows
from publisher_erase.uce import LowRank, Rows, edit_map

SCALES = (0.1, 1.0, 0.1)


@pytest.mark.parametrize("epochs", [0, 1, 3])
@pytest.mark.parametrize("rho", [0.1, 0.001])
def test_the_d_by_d_algebra_equals_the_published_loop_over_layers(epochs: int, rho: float) -> None:
    rows, weights = random_rows(3, 4, 12), random_weights(12)
    found = edited(weights, erase_map(rows, gram(weights), epochs, rho, SCALES, joint=False))
    assert worst(found, rece_layers(weights, rows, epochs, rho, SCALES)) < 1e-6


def test_adversarial_rows_equal_the_published_formula() -> None:
    rows, weights = random_rows(3, 4, 12), random_weights(12)
    s = edit_map(rows, *SCALES)
    wanted = [adversarial_row(c, edited(weights, s), weights, 0.1) for c in rows.concepts]
    torch.testing.assert_close(adversarial_rows(rows.concepts, s, gram(weights), 0.1), torch.stack(wanted))


def test_without_an_edit_the_derivation_is_ridge_regression_by_hand() -> None:
    """Solve by hand: S = I, M = diag(1, 4), rho = 1: c' = (M + I)^-1 M c = (c1 / 2, 4 c2 / 5)."""
    m = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    c = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    found = adversarial_rows(c, LowRank.identity(2, c), m, rho=1.0)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.8]], dtype=torch.float64))


def test_rho_to_zero_finds_the_embedding_that_undoes_an_invertible_edit() -> None:
    rows, weights = random_rows(2, 3, 8), random_weights(8)
    s = edit_map(rows, 5.0)
    found = adversarial_rows(rows.concepts, s, gram(weights), rho=1e-12)
    torch.testing.assert_close(s.rows(found), rows.concepts)


def test_rho_to_infinity_finds_nothing() -> None:
    rows, weights = random_rows(2, 3, 8), random_weights(8)
    assert adversarial_rows(rows.concepts, edit_map(rows, 1.0), gram(weights), 1e15).abs().max() < 1e-9


def test_a_singular_edit_is_solved_and_gives_finite_rows() -> None:
    """Let a projection lose a direction; rho keeps the system definite."""
    x = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    lost = LowRank(-x.T, x)
    found = adversarial_rows(x, lost, torch.eye(2, dtype=torch.float64), rho=0.1)
    torch.testing.assert_close(found, torch.zeros_like(x))


def test_an_epoch_lowers_what_the_attack_of_the_epoch_before_still_reached() -> None:
    rows, weights = random_rows(2, 3, 12), random_weights(12)
    m = gram(weights)
    found = []
    for epochs in (0, 1):
        s = erase_map(rows, m, epochs, 0.1, SCALES)
        attack = adversarial_rows(rows.concepts, s, m, 0.1)
        found.append(float((s.rows(attack) - rows.concepts).norm()))
    assert found[1] > found[0]


@pytest.mark.parametrize("rho", [0.0, -1.0, float("nan"), float("inf")])
def test_rho_outside_its_range_is_refused(rho: float) -> None:
    rows = random_rows(1, 1, 4)
    with pytest.raises(ValueError, match="rho must be above 0"):
        adversarial_rows(rows.concepts, edit_map(rows, 1.0), torch.eye(4, dtype=torch.float64), rho)


@pytest.mark.parametrize("d", [1, 3, 4, 8, 13, 128])
def test_the_gram_matrix_is_the_sum_of_products_for_any_width(d: int) -> None:
    weights = random_weights(d)
    found = gram(weights)
    torch.testing.assert_close(found, sum((w.T @ w for w in weights), torch.zeros(d, d, dtype=torch.float64)))
    assert torch.equal(found, found.T)


def test_half_precision_weights_are_widened_before_they_are_squared() -> None:
    large = torch.full((4, 4), 300.0, dtype=torch.float16)
    torch.testing.assert_close(gram([large]), torch.full((4, 4), 4 * 300.0**2, dtype=torch.float64))


def test_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="no projection"):
        gram([])


def test_float32_products_move_the_edit_by_less_than_a_millionth() -> None:
    noise = torch.Generator().manual_seed(0)
    weights = [torch.randn(o, 64, generator=noise) / 8 for o in (64, 128, 192, 192, 128)]
    rows = random_rows(6, 40, 64)
    wide = [weight.double() for weight in weights]
    found, exact = (edited(wide, erase_map(rows, matrix, 2, 0.1, SCALES)) for matrix in (gram(weights), gram(wide)))
    assert worst(found, exact) < 1e-6


def test_what_is_retained_is_kept_exactly_in_the_limit() -> None:
    rows, weights = random_rows(2, 3, 12), random_weights(12)
    s = erase_map(rows, gram(weights), 2, 0.1, (0.1, 1.0, 1e12))
    torch.testing.assert_close(s.rows(rows.retain), rows.retain)


def test_the_same_rows_give_the_same_bytes() -> None:
    weights = random_weights(12)
    first, second = (erase_map(random_rows(3, 4, 12), gram(weights), 2, 0.1, SCALES) for _ in range(2))
    assert torch.equal(first.dense(), second.dense())


def test_an_epoch_uses_new_concepts_and_nothing_else_of_the_rows() -> None:
    rows, weights = random_rows(2, 3, 12), random_weights(12)
    m = gram(weights)
    first = edit_map(rows, *SCALES)
    attack = Rows(adversarial_rows(rows.concepts, first, m, 0.1), rows.targets, rows.w, rows.retain, rows.v)
    wanted = first.dense() @ edit_map(attack, *SCALES).dense()
    torch.testing.assert_close(erase_map(rows, m, 1, 0.1, SCALES, joint=False).dense(), wanted)


@pytest.mark.parametrize("joint", [True, False])
def test_no_epoch_is_uce(joint: bool) -> None:  # noqa: FBT001
    rows = random_rows(2, 3, 12)
    found = erase_map(rows, gram(random_weights(12)), 0, 0.1, SCALES, joint=joint)
    assert torch.equal(found.dense(), edit_map(rows, *SCALES).dense())


def test_the_joint_solution_is_uce_with_all_rows_found_so_far() -> None:
    rows, weights = random_rows(2, 3, 12), random_weights(12)
    m = gram(weights)
    c1 = adversarial_rows(rows.concepts, edit_map(rows, *SCALES), m, 0.1)
    two = Rows(torch.cat([rows.concepts, c1]), rows.targets.repeat(2, 1), rows.w.repeat(2), rows.retain, rows.v)
    wanted = [uce_layer(weight, two, *SCALES) for weight in weights]
    assert worst(edited(weights, erase_map(rows, m, 1, 0.1, SCALES)), wanted) < 1e-6


def test_the_joint_solution_keeps_concepts_nearer_to_their_targets() -> None:
    rows, weights = random_rows(2, 3, 12), random_weights(12)
    m = gram(weights)
    joint, sequential = (erase_map(rows, m, 2, 0.1, SCALES, joint=flag).rows(rows.concepts) for flag in (True, False))
    assert (joint - rows.targets).norm() < (sequential - rows.targets).norm()


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize("joint", [True, False])
def test_at_one_weight_with_fewer_rows_than_columns_the_thin_form_equals_the_thick_one(
    epochs: int, *, joint: bool
) -> None:
    rows = random_rows(3, 4, 12)
    entry = torch.randn(5, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    s = edit_map(rows, *SCALES)
    thick, thin = adversarial_rows(rows.concepts, s, gram([entry]), 0.1), thin_rows(rows.concepts, s, entry, 0.1)
    torch.testing.assert_close(thin, thick, rtol=1e-10, atol=1e-10)
    maps = [erase_map(rows, entry, epochs, 0.1, SCALES, joint=joint, thin=True).dense()]
    maps.append(erase_map(rows, gram([entry]), epochs, 0.1, SCALES, joint=joint).dense())
    torch.testing.assert_close(*maps, rtol=1e-10, atol=1e-10)


def test_the_thin_form_by_hand() -> None:
    """Solve by hand: S = I, E = (1, 2), rho = 1: c' = E^T (1 + 5)^-1 E c = (0.5, 1) for c = (1, 1)."""
    c, entry = torch.ones(1, 2, dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    found = thin_rows(c, LowRank.identity(2, c), entry, rho=1.0)
    torch.testing.assert_close(found, torch.tensor([[0.5, 1.0]], dtype=torch.float64))
    with pytest.raises(ValueError, match="rho must be above 0"):
        thin_rows(c, LowRank.identity(2, c), entry, rho=0.0)
