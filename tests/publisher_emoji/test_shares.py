from __future__ import annotations

import pytest

from publisher_emoji.shares import share


def test_no_hit_in_299_is_at_most_one_percent_and_a_bit() -> None:
    """Check Clopper-Pearson by hand: with no hit the upper end is 1 - 0.025 ** (1 / n)."""
    part = share(0, 299)
    assert (part["low"], part["share"]) == (0.0, 0.0)
    assert part["high"] == round(1 - 0.025 ** (1 / 299), 4)


def test_nothing_measured_is_an_error_not_zero() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        share(0, 0)
