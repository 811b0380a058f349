from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from publisher.api import NoParams, PixelPair
from publisher.builtin.metrics.sets import PromptMatch, SetDistance

NONE = NoParams()


def vectors(n: int, shift: float, name: str) -> Any:
    """Return directions around one axis, turned by a shift."""
    samples = np.random.default_rng(len(name)).standard_normal((n, 16))
    samples[:, 0] += 3
    samples[:, 1] += shift
    return samples / np.linalg.norm(samples, axis=1, keepdims=True)


def pairs(n: int, prompts: int, matches: tuple[float, float] | None = None) -> list[PixelPair]:
    before, after = matches or (None, None)
    return [
        PixelPair(
            concept=f"concept {i % 2}",
            prompt=f"prompt {i % prompts}",
            seed=i,
            distance=0.1,
            base_match=None if before is None else before + i / 1000,
            hardened_match=None if after is None else after + i / 1000,
        )
        for i in range(n)
    ]


def test_equal_images_have_no_distance_and_other_ones_have() -> None:
    base = vectors(60, 0, "base")
    same = SetDistance().compare(NONE, pairs(60, 60), base, base).hardened
    assert (same.value, same.low, same.high) == (0, 0, 0)
    other = SetDistance().compare(NONE, pairs(60, 60), base, vectors(60, 3, "other")).hardened
    assert other.low > 1
    assert other.method == "bootstrap over images, percentile 95%"


@pytest.mark.slow
def test_the_distance_is_nearly_ten_times_that_of_the_means() -> None:
    first, second = vectors(2000, 0, "first"), vectors(2000, 2, "second")
    found = SetDistance().compare(NONE, pairs(2000, 2000), first, second).hardened
    means = 10 * float(np.square(first.mean(0) - second.mean(0)).sum())
    assert found.value == pytest.approx(means, rel=0.02)


@pytest.mark.slow
def test_sets_of_one_distribution_are_at_no_distance_on_average() -> None:
    names = [("a" * i, "b" * (i + 500)) for i in range(1, 41)]
    values = [
        SetDistance().compare(NONE, pairs(30, 30), vectors(30, 0, one), vectors(30, 0, other)).hardened.value
        for one, other in names
    ]
    spread = float(np.std(values)) / len(values) ** 0.5
    assert abs(float(np.mean(values))) < 3 * spread
    assert min(values) < 0


def test_the_control_is_the_base_model_with_other_seeds() -> None:
    base, hardened = vectors(60, 0, "base"), vectors(60, 3, "other")
    found = SetDistance().compare(NONE, pairs(60, 6), base, hardened)
    assert found.base is not None
    assert (found.base.n, found.base.low < 0.5 < found.hardened.low) == (30, True)
    assert found.hardened.method == "bootstrap over 6 prompts, percentile 95%"
    assert set(found.by_concept) == {"concept 0", "concept 1"}
    assert SetDistance().compare(NONE, pairs(60, 60), base, hardened).base is None
    with pytest.raises(ValueError, match="5 images are too few"):
        SetDistance().compare(NONE, pairs(5, 5), base[:5], hardened[:5])


def test_the_match_with_the_prompt_is_compared_pair_by_pair() -> None:
    found = PromptMatch().measure(NONE, pairs(12, 12, (0.30, 0.28)))
    assert found.hardened.value == pytest.approx(-0.02)
    assert found.hardened.low == pytest.approx(-0.02, abs=1e-6)
    assert (found.details["base"], found.details["hardened"]) == (0.3055, 0.2855)
    assert set(found.by_concept) == {"concept 0", "concept 1"}
    with pytest.raises(ValueError, match="are not there"):
        PromptMatch().measure(NONE, pairs(12, 12))
    with pytest.raises(ValueError, match="2 images are too few"):
        PromptMatch().measure(NONE, pairs(2, 2, (0.3, 0.3)))
