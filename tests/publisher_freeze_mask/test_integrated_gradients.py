from __future__ import annotations

import pytest
import torch
from mask_cases import CANDIDATES, halves, scored, unet_case

from publisher.api.freeze_mask import jaccard
from publisher_freeze_mask.integrated_gradients import path_scores
from publisher_freeze_mask.units import Units, worth


def test_scores_of_a_square_are_those_of_the_hand() -> None:
    """Solve by hand: L = |w|^2 from w = a to 0: c_i = a_i^2, and two points are exact."""
    network, place = halves()
    delta = {"left": -place.read("left")}
    found = path_scores(place, delta, [lambda: network.left.square().sum()], 2)
    wanted = float(place.read("left").square().sum())
    assert float(found.scores["left"]) == pytest.approx(wanted, rel=1e-12)
    assert (found.gain, found.predicted) == pytest.approx((wanted, wanted), rel=1e-12)


def test_scores_add_up_to_what_the_loss_fell_by() -> None:
    place, delta, loss = unet_case()
    found = path_scores(place, delta, [loss, loss], 6)
    assert found.predicted == pytest.approx(found.gain, rel=1e-3)
    assert abs(found.gain) > 1e-3


def test_one_point_is_coarser_than_six() -> None:
    place, delta, loss = unet_case()
    off = [
        abs(path_scores(place, delta, [loss], n).predicted / path_scores(place, delta, [loss], n).gain - 1)
        for n in (1, 6)
    ]
    assert off[0] > 10 * off[1]


def test_the_network_is_put_back_bit_for_bit() -> None:
    place, delta, loss = unet_case()
    path_scores(place, delta, [loss], 2)
    assert all(torch.equal(tensor, place.read(name)) for name, tensor in place.parameters.items())


def test_a_fine_tuning_scores_the_half_that_it_needs() -> None:
    _, place = halves()
    found = scored(place, "illegal", 1)[1]
    assert float(found.scores["left"]) == pytest.approx(found.gain, rel=1e-3)
    assert float(found.scores["right"]) == 0


def test_exchanging_the_sides_changes_the_mask_and_another_seed_does_not() -> None:
    units, (_, place) = Units(CANDIDATES), halves()
    masks = []
    for illegal, innocent, seed in (("illegal", "innocent", 1), ("illegal", "innocent", 2), ("innocent", "illegal", 1)):
        paths = [[scored(place, side, seed)[1]] for side in (illegal, innocent)]
        masks.append(units.top(worth(units, *paths, 1.0), units.budget(0.5, "parameters", 24)))
    assert masks[0] == {"left": ()}
    assert jaccard(masks[0], masks[1], CANDIDATES) == 1
    assert jaccard(masks[0], masks[2], CANDIDATES) == 0
