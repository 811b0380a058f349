"""The best linear guess of a noised picture: by hand, at both ends of the noise, and from correlated pictures."""

from __future__ import annotations

import pytest
import torch

from publisher.evaluate.searching.inputs import Prior


def prior(mean: float, variance: float) -> Prior:
    empty = torch.zeros(0, 2, dtype=torch.float64)
    return Prior(torch.full((2,), mean, dtype=torch.float64), empty, torch.zeros(0, dtype=torch.float64), variance)


def test_one_number_can_be_guessed_by_hand() -> None:
    guess = prior(1.0, 4.0).guess(torch.full((1, 1, 1, 2), 3.0), (0.5, 2.0))
    assert guess.flatten().tolist() == pytest.approx([1 + 0.5 * 4 / (0.25 * 4 + 4) * (3 - 0.5)] * 2)


def test_a_clean_picture_is_seen_and_noise_alone_gives_the_mean() -> None:
    x = torch.randn(3, 1, 1, 2)
    torch.testing.assert_close(prior(1.0, 4.0).guess(x, (1.0, 0.0)), x)
    torch.testing.assert_close(prior(1.0, 4.0).guess(x, (0.0, 1.0)), torch.ones(3, 1, 1, 2))


def test_what_pictures_have_in_common_is_seen_through_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randn(1, 1, 4, 4, generator=generator)
    amounts = torch.randn(60, 1, 1, 1, generator=generator)
    found = Prior.of(amounts * pattern + 0.05 * torch.randn(60, 1, 4, 4, generator=generator))
    picture = 1.5 * pattern
    x = 0.6 * picture + 0.8 * torch.randn(1, 1, 4, 4, generator=generator)
    guess = found.guess(x, (0.6, 0.8))
    assert float((guess - picture).norm()) < 0.3 * float((x / 0.6 - picture).norm())
    along = torch.nn.functional.cosine_similarity(found.directions[0], pattern.flatten().double(), dim=0)
    assert abs(float(along)) > 0.99
    assert 0 < found.rest < float(found.variances[-2]) < 0.1 < float(found.variances[0])


def test_pictures_without_any_common_direction_are_drawn_to_equal_variances() -> None:
    found = Prior.of(torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert float(found.variances.max()) < 3 * found.rest
