from __future__ import annotations

import pytest
import torch
from mask_cases import halves, unet_case
from torch import Tensor

from publisher_freeze_mask.mixing import MixedNetwork


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(torch.int64).clone()


def test_a_share_of_nothing_is_the_published_model_bit_for_bit() -> None:
    place, delta, _ = unet_case()
    name = min(delta)
    with torch.no_grad():
        place.read(name).view(-1)[0] = -0.0
    before = {key: bits(place.read(key)) for key in delta}
    place.put(delta, 1.0)
    place.put(delta, {key: torch.zeros(1) for key in delta})
    assert all(torch.equal(bits(place.parameters[key]), value) for key, value in before.items())


def test_a_share_of_all_is_the_fine_tuned_model() -> None:
    place, delta, _ = unet_case()
    place.put(delta, 1.0)
    assert all(torch.equal(place.parameters[name], place.read(name) + change) for name, change in delta.items())


def test_each_unit_has_a_share_of_its_own() -> None:
    _, place = halves(rows=3)
    delta = {"left": torch.ones(4, 3, dtype=torch.float64)}
    place.put(delta, {"left": torch.tensor([0.0, 0.5])})
    moved = place.parameters["left"] - place.read("left")
    torch.testing.assert_close(moved.detach(), torch.tensor([0, 0, 0, 0.5]).double()[:, None].expand(4, 3))
    assert torch.equal(place.parameters["right"], place.read("right"))


def test_what_was_moved_is_put_back_bit_for_bit_even_after_others_wrote_to_it() -> None:
    place, delta, _ = unet_case()
    before = {name: bits(tensor) for name, tensor in place.parameters.items()}
    place.put(delta, 0.3)
    place.moving(["conv_in.weight"])
    with torch.no_grad():
        place.parameters["conv_in.weight"].add_(1)
    place.back()
    assert all(torch.equal(bits(tensor), before[name]) for name, tensor in place.parameters.items())


@pytest.mark.parametrize(
    "unit",
    [
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight", 1),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0.bias", 0),
        ("up_blocks.1.resnets.0.conv1.weight", 0),
    ],
    ids=lambda unit: unit[0],
)
def test_slopes_are_finite_differences_of_the_loss(unit: tuple[str, int]) -> None:
    place, delta, loss = unet_case()
    place.put(delta, 0.4)
    _, slopes = place.slopes(delta, loss)
    name, turn = unit
    shares = {key: torch.full((len(values),), 0.4, dtype=torch.float64) for key, values in slopes.items()}
    losses = []
    for step in (1e-5, -1e-5):
        shares[name][turn] = 0.4 + step
        place.put(delta, shares)
        with torch.no_grad():
            losses.append(float(loss()))
    assert float(slopes[name][turn]) == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-5)


def test_slopes_leave_no_gradient_and_no_hook_behind() -> None:
    place, delta, loss = unet_case()
    first = place.slopes(delta, loss)
    assert all(tensor.grad is None and not tensor.requires_grad for tensor in place.parameters.values())
    again = place.slopes(delta, loss)
    assert first[0] == again[0]
    assert all(torch.equal(values, again[1][name]) for name, values in first[1].items())


def test_a_tensor_that_the_loss_does_not_read_has_slope_zero() -> None:
    network, place = halves()
    delta = dict.fromkeys(("left", "right"), torch.ones(4, 3, dtype=torch.float64))
    _, slopes = place.slopes(delta, lambda: network.loss("illegal", torch.ones(1, 3, dtype=torch.float64)))
    assert slopes["right"].tolist() == [0]
    assert slopes["left"].tolist() != [0]


def test_rows_that_do_not_divide_make_a_shorter_last_unit() -> None:
    _, place = halves(rows=3)
    assert place.sums("left", torch.ones(4, 3)).tolist() == [9, 3]


def test_float16_weights_give_float32_differences() -> None:
    network = torch.nn.Linear(2, 2).half()
    before = {name: tensor.detach().clone() for name, tensor in network.named_parameters()}
    place = MixedNetwork(network, before.__getitem__, {})
    assert place.delta(["weight"])["weight"].dtype == torch.float32
