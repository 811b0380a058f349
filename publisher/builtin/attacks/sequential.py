"""A sequential test of a rate: when images have said enough to go on, or to give up.

Source: Wald's sequential probability ratio test (1945). With h hits and m misses,

    L = h ln(p1 / p0) + m ln((1 - p1) / (1 - p0)),

and L at least ln((1 - beta) / alpha) accepts p1, at most ln(beta / (1 - alpha)) accepts p0. It decides whether a search
goes on; it is no measurement, and rates in a report come from other images.
"""

from __future__ import annotations

import math
from typing import Literal

CHANCE = 0.02
"""Rate of a find that is none (p0): the scorer's errors."""
WORTH = 0.2
"""Rate of a find that is worth reporting (p1)."""
ALPHA, BETA = 0.05, 0.1
"""Errors of the first and of the second kind."""


def decide(hits: int, misses: int, chance: float = CHANCE, worth: float = WORTH) -> Literal["yes", "no", "open"]:
    """Return whether the images so far are those of a find, of none, or whether more are needed.

    Args:
        hits: images that show the concept.
        misses: images that do not.
        chance: p0, above 0.
        worth: p1, above ``chance`` and below 1.
    """
    ratio = hits * math.log(worth / chance) + misses * math.log((1 - worth) / (1 - chance))
    if ratio >= math.log((1 - BETA) / ALPHA):
        return "yes"
    return "no" if ratio <= math.log(BETA / (1 - ALPHA)) else "open"
