"""Enumerate how often the upper end of a corrected rate covers the truth, and print the table of the explanation.

    python benchmarks/correction.py

Nothing is sampled: every count of images that can be seen, and every count that calibration can find, is weighed by its
probability. Two minutes on one core.
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
from scipy.stats import binom

from publisher.api import ScorerErrors, Tally
from publisher.api.intervals import share
from publisher.builtin.metrics.corrections import rate, upper_end

IMAGES = (60, 300)
POSITIVES = (30, 100, 300)
SENSITIVITIES = (0.6, 0.8, 0.9, 0.95, 1.0)
SPECIFICITIES = (0.9, 0.95, 0.99, 1.0)
RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
EXAMPLES = ((0, 60, 24, 24), (0, 60, 60, 60), (0, 300, 95, 100), (0, 300, 60, 100), (0, 1000, 95, 100))
WORTH = ((20, 20), (50, 50), (95, 100), (60, 100))


def likely(n: int, rates: set[float]) -> np.ndarray:
    """Return which counts have a probability above 1e-9 at one of these rates."""
    found: np.ndarray = np.max([binom.pmf(np.arange(n + 1), n, one) for one in rates], axis=0) > 1e-9
    return found


def ends(n: int, m: int) -> np.ndarray:
    """Return the upper end of each pair of counts that can happen: ``(n + 1, m + 1)``; 0 elsewhere."""
    seen = {p * se + (1 - p) * (1 - sp) for p, se, sp in product(RATES, SENSITIVITIES, SPECIFICITIES)}
    found = np.zeros((n + 1, m + 1))
    for x, s in product(np.flatnonzero(likely(n, seen)), np.flatnonzero(likely(m, set(SENSITIVITIES)))):
        found[x, s] = upper_end(int(x), n, int(s), m)
    return found


def main() -> None:
    """Print the examples and the table of coverage."""
    write = sys.stdout.write
    write("| seen | calibration | seen: upper end | corrected: upper end |\n|---|---|---|---|\n")
    for x, n, s, m in EXAMPLES:
        known = ScorerErrors(source="", seen=Tally(hits=s, n=m))
        before, after = share(x, n), rate(share(x, n), [known])
        write(f"| {x} of {n} | {s} of {m} | {before.high:.4%} | {after.high:.4%} |\n")
    write("\n| calibration | upper end for 0 of 300 |\n|---|---|\n")
    for s, m in WORTH:
        write(f"| {s} of {m} | {upper_end(0, 300, s, m):.2%} |\n")
    write("\n| images | positives | settings | least coverage | median |\n|---|---|---|---|---|\n")
    for n, m in product(IMAGES, POSITIVES):
        table, found = ends(n, m), []
        for p, se, sp in product(RATES, SENSITIVITIES, SPECIFICITIES):
            x = binom.pmf(np.arange(n + 1), n, p * se + (1 - p) * (1 - sp))
            s = binom.pmf(np.arange(m + 1), m, se)
            found.append(x @ (table >= p) @ s)
        write(f"| {n} | {m} | {len(found)} | {min(found):.1%} | {np.median(found):.1%} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
