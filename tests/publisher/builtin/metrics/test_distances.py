from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import bdtr

from publisher.api import Gate, NoParams, PixelPair
from publisher.api.intervals import LEVEL, median
from publisher.api.verdicts import decide
from publisher.builtin.metrics.distances import ChangedImages, ImageDistance, KeptDistance, KeptDistanceParams

NO = NoParams()


def far(concept: str, distances: Sequence[float], permeability: float | None = None) -> list[PixelPair]:
    """Return pairs of images of one concept at these distances from the base model's."""
    return [
        PixelPair(concept=concept, prompt=f"prompt {i}", seed=i, distance=distance, permeability=permeability)
        for i, distance in enumerate(distances)
    ]


def test_the_median_distance_lies_between_two_order_statistics() -> None:
    """Expect the second and ninth of 10 values: they cover the median with 97.9%, the third and eighth with 89.1%."""
    found = ImageDistance().measure(NO, far("pizza", [i / 100 for i in range(10)])).hardened
    assert (found.low, found.value, found.high) == (0.01, pytest.approx(0.045), 0.08)


@pytest.mark.parametrize("n", [6, 9, 10, 60, 142, 997])
def test_the_order_statistics_of_the_median_are_those_of_the_binomial_distribution(n: int) -> None:
    rank = int(np.searchsorted(bdtr(np.arange(n), n, 0.5), (1 - LEVEL) / 2)) - 1
    found = median(range(n))
    assert (found.low, found.high) == (rank, n - 1 - rank)


def test_distance_quantiles_are_in_the_details() -> None:
    details = ImageDistance().measure(NO, far("pizza", [i / 100 for i in range(101)])).details
    assert details["quantiles"] == pytest.approx({"0.05": 0.05, "0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "0.95": 0.95})


def test_five_images_have_no_median_with_an_interval() -> None:
    with pytest.raises(ValueError, match="5 images are too few"):
        median([0.0] * 5)


def test_one_image_of_forty_that_differs_breaks_a_gate_of_none() -> None:
    gate = Gate(value_at_most=0.0, upper_at_most=0.1)
    one = ChangedImages().measure(NO, far("pizza", [0.0] * 39 + [1e-6]))
    assert (decide(gate, one.hardened)[0], one.hardened.n) == ("failed", 40)
    assert one.details["largest"] == {"distance": 1e-6, "prompt": "prompt 39", "seed": 39}
    none = ChangedImages().measure(NO, far("pizza", [0.0] * 40)).hardened
    assert none == ChangedImages().best(NO, 40)
    assert (decide(gate, none)[0], none.high) == ("passed", pytest.approx(0.088, abs=1e-3))
    assert decide(gate, ImageDistance().measure(NO, far("pizza", [0.0] * 27 + [0.5] * 13)).hardened)[0] == "passed"


def test_changed_images_are_counted_for_each_concept() -> None:
    found = ChangedImages().measure(NO, far("pizza", [0.0, 0.1]) + far("cat", [0.0] * 4))
    assert {name: one.value for name, one in found.by_concept.items()} == {"pizza": 0.5, "cat": 0.0}


def test_kept_distance_is_the_median_of_all_images() -> None:
    rows = far("pizza", [0.0] * 7) + far("cat", [0.2] * 4)
    found = KeptDistance().measure(KeptDistanceParams(), rows)
    assert found.hardened == median([0.0] * 7 + [0.2] * 4)
    assert (found.hardened.value, list(found.by_concept)) == (0.0, ["pizza"])


def test_kept_distance_counts_the_images_that_are_the_base_models_bit_for_bit() -> None:
    found = KeptDistance().measure(KeptDistanceParams(), far("pizza", [0.0, 0.0, 0.0, 1e-6, 0.1, 0.2, 0.3, 0.4]))
    assert (found.details["unchanged"]["value"], found.details["unchanged"]["n"]) == (3 / 8, 8)


def test_kept_distance_names_the_concepts_that_moved_most_and_ties_in_the_checks_order() -> None:
    rows = [*far("near", [0.1] * 6), *far("hit", [0.3, 0.5]), *far("far", [0.1] * 6), *far("still", [0.0] * 6)]
    worst = KeptDistance().measure(KeptDistanceParams(worst=3), rows).details["worst"]
    assert worst == [
        {"concept": "hit", "median": 0.4, "n": 2},
        {"concept": "near", "median": 0.1, "n": 6},
        {"concept": "far", "median": 0.1, "n": 6},
    ]


def test_kept_distance_by_permeability_tells_what_the_membranes_let_through() -> None:
    rows = [
        *far("pizza", [0.0] * 6, 0.0),
        *far("cat", [0.1, 0.3], 0.25),
        *far("dog", [0.5], 0.2500001),
        *far("fox", [0.7, 0.9], 1.8),
    ]
    assert KeptDistance().measure(KeptDistanceParams(), rows).details["by_permeability"] == [
        {"permeability": "0", "n": 6, "median": 0.0},
        {"permeability": "> 0 to 0.25", "n": 2, "median": 0.2},
        {"permeability": "> 0.25 to 0.5", "n": 1, "median": 0.5},
        {"permeability": "> 1", "n": 2, "median": 0.8},
    ]


def test_without_membranes_there_is_nothing_by_permeability() -> None:
    assert "by_permeability" not in KeptDistance().measure(KeptDistanceParams(), far("cat", [0.1] * 6)).details


def test_the_best_of_n_is_what_equal_images_measure() -> None:
    still, params = far("pizza", [0.0] * 60), KeptDistanceParams()
    assert ImageDistance().best(NO, 60) == ImageDistance().measure(NO, still).hardened
    assert KeptDistance().best(params, 60) == KeptDistance().measure(params, still).hardened
