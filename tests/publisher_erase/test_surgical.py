from __future__ import annotations

import torch

from publisher_erase.robust import derived_rows, inner_losses
from publisher_erase.surgical import guidance_term, mean_square, surgical_loss


def noise(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_at_the_frozen_model_the_loss_is_the_distance_of_the_two_prompts() -> None:
    concept, alternative, empty = map(noise, range(3))
    found = surgical_loss(concept, empty, alternative, empty)
    torch.testing.assert_close(found, mean_square(concept, alternative))


def test_at_the_alternative_loss_and_gradient_are_zero() -> None:
    alternative, empty = noise(0), noise(1)
    text = alternative.clone().requires_grad_()
    loss = surgical_loss(text, empty, alternative, empty)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert text.grad is not None
    assert not text.grad.any()


def test_a_drift_of_both_predictions_alike_is_not_seen_by_the_guidance_term() -> None:
    """That is why the empty prompt is held by a term of its own."""
    text, empty, shift = map(noise, range(3))
    torch.testing.assert_close(guidance_term(text + shift, empty + shift), guidance_term(text, empty))
    assert mean_square(empty + shift, empty) > 0.1


def test_the_gradient_runs_through_both_predictions() -> None:
    text, empty = noise(0).requires_grad_(), noise(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: surgical_loss(a, b, noise(2), noise(3)), (text, empty))


def test_side_by_side_each_search_has_its_own_loss() -> None:
    predicted, target = noise(0), noise(1)
    found = inner_losses(predicted, target, 3)
    torch.testing.assert_close(found[1], mean_square(predicted[1], target[1]))


def test_nothing_is_derived_against_weights_that_did_not_change() -> None:
    states, weights = noise(0).flatten(2), [torch.eye(4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)]
    torch.testing.assert_close(derived_rows(states, weights, weights, 1e-12), states)


def test_what_is_derived_undoes_an_invertible_edit() -> None:
    states = noise(0).flatten(2)
    base = [torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (7, 8)]
    edit = torch.eye(4, dtype=torch.float64) + 0.3 * torch.ones(4, 4, dtype=torch.float64)
    found = derived_rows(states, [weight @ edit for weight in base], base, 1e-12)
    torch.testing.assert_close(found @ edit.T, states)
