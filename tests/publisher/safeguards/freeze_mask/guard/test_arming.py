"""Frozen tensors, and rows of them, stay; what does not fit is refused before anything is touched."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from publisher.api.freeze_mask import Frozen, part
from publisher.errors import ExitCode, UsageError
from publisher.safeguards.freeze_mask.guard.arming import Stay, arm, arm_published
from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError, NotTheModelError
from support.guarding import FEED, FROZEN, QUERY, VALUE, adamw, loss, mask_of, tiny_unet, train


def weights(unet: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in unet.named_parameters()}


def changed(before: dict[str, torch.Tensor], unet: Any, frozen: Frozen = FROZEN) -> set[str]:
    """Return frozen tensors that are not what they were."""
    after = weights(unet)
    return {name for name, rows in frozen.items() if not torch.equal(part(before[name], rows), part(after[name], rows))}


def test_frozen_tensors_and_rows_stay_and_the_rest_learns() -> None:
    unet = tiny_unet()
    before = weights(unet)
    armed = arm(unet, FROZEN)
    optimizer = adamw(unet.parameters())
    for _ in range(3):
        train(unet, optimizer, 1)
        armed.enforce()
    assert changed(before, unet) == set()
    armed.check()
    after = weights(unet)
    assert not torch.equal(before[FEED][4:8], after[FEED][4:8])
    assert all(not torch.equal(before[name], after[name]) for name in before if name not in FROZEN)


def test_without_being_armed_every_one_of_them_changes() -> None:
    unet = tiny_unet()
    before = weights(unet)
    train(unet, adamw(unet.parameters()))
    assert changed(before, unet) == set(FROZEN)


def test_frozen_rows_have_no_share_in_the_gradients_norm() -> None:
    unet = tiny_unet()
    unet.requires_grad_(False)  # as a script may have it when it is armed
    arm(unet, {FEED: ((0, 4),)})
    assert not any(tensor.requires_grad for tensor in unet.parameters())
    unet.requires_grad_(True)
    loss(unet).backward()
    gradient = unet.get_parameter(FEED).grad
    assert not gradient[:4].any()
    assert gradient[4:].any()


def test_weight_decay_moves_frozen_rows_until_they_are_put_back() -> None:
    unet = tiny_unet()
    armed = arm(unet, {FEED: ((0, 4),)})
    train(unet, adamw(unet.parameters()), 1)
    with pytest.raises(MaskBrokenError, match="has changed") as caught:
        armed.check()
    assert (caught.value.where, caught.value.exit_code) == (FEED, ExitCode.REFUSED)
    armed.enforce()
    armed.check()


def test_a_change_is_found_with_its_name_and_how_many_there_are() -> None:
    unet = tiny_unet()
    armed = arm(unet, FROZEN)
    with torch.no_grad():
        unet.get_parameter(QUERY)[0, 0] += 1e-6
    with pytest.raises(MaskBrokenError, match=r"has changed\n"):
        armed.check()
    armed.check(["conv_in.bias"])
    with torch.no_grad():
        unet.conv_in.bias[0] += 1
    with pytest.raises(MaskBrokenError, match="has changed \\(and 1 more\\)"):
        armed.check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_is_no_change_and_what_comes_after_it_is(dtype: torch.dtype) -> None:
    unet = tiny_unet()
    armed = arm(unet, FROZEN)
    unet.to(dtype)
    armed.check()
    unet.float()
    armed.check()
    with torch.no_grad():
        unet.get_parameter(QUERY)[0, 0] *= 1 + 2**-20  # lost in a cast, seen nevertheless
    with pytest.raises(MaskBrokenError):
        armed.check()


def test_published_tensors_are_recognised_in_every_type_they_may_be_loaded_in() -> None:
    mask = mask_of(tiny_unet())
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        arm_published(tiny_unet().to(dtype), mask).check()
    arm_published(tiny_unet().half().float(), mask).check()


def test_other_weights_are_refused_by_name_and_nothing_is_touched() -> None:
    mask, unet = mask_of(tiny_unet()), tiny_unet()
    with torch.no_grad():
        unet.get_parameter(QUERY)[3, 3] += 1e-5
    with pytest.raises(NotTheModelError, match=r"is not the published tensor(?s:.*)released weights") as caught:
        arm_published(unet, mask)
    assert (caught.value.where, caught.value.exit_code) == (QUERY, ExitCode.USAGE)
    assert all(tensor.requires_grad for tensor in unet.parameters())


def test_missing_misshapen_short_and_valueless_tensors_are_refused() -> None:
    unet = tiny_unet()
    with pytest.raises(NotTheModelError, match="has none of that name"):
        arm(unet, {"conv_nowhere.weight": ()})
    with pytest.raises(NotTheModelError, match="no rows up to 99"):
        arm(unet, {"conv_in.weight": ((0, 99),)})
    mask = mask_of(unet)
    unet.conv_in.bias = torch.nn.Parameter(torch.zeros(3))
    with pytest.raises(NotTheModelError, match=r"has the shape \(3,\)"):
        arm_published(unet, mask)
    with pytest.raises(NotTheModelError, match="device 'meta'"):
        arm(torch.nn.Linear(2, 2, device="meta"), {"weight": ()})
    quantised = torch.nn.Module()
    quantised.weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(NotTheModelError, match="not quantised"):
        arm(quantised, {"weight": ()})


def test_a_layer_that_is_taken_away_is_noticed() -> None:
    unet = tiny_unet()
    armed = arm(unet, FROZEN)
    unet.conv_in = torch.nn.Identity()
    with pytest.raises(MaskBrokenError, match="is gone"):
        armed.check()


def test_releasing_restores_the_flags_and_takes_off_the_hooks() -> None:
    unet = tiny_unet()
    unet.conv_in.bias.requires_grad_(False)
    armed = arm(unet, FROZEN)
    with pytest.raises(UsageError, match="guarded already"):
        arm(unet, {})
    armed.release()
    armed.release()
    assert [name for name, tensor in unet.named_parameters() if not tensor.requires_grad] == ["conv_in.bias"]
    assert not any(module._forward_pre_hooks for module in unet.modules())
    loss(unet).backward()
    assert unet.get_parameter(FEED).grad[:4].any()
    arm(unet, FROZEN).release()


def test_what_is_free_are_all_tensors_but_those_frozen_as_a_whole() -> None:
    unet = tiny_unet()
    free = arm(unet, FROZEN).free()
    assert set(dict(unet.named_parameters())) - set(free) == {"conv_in.bias", "conv_in.weight", QUERY}
    assert {FEED, VALUE} <= set(free)


def test_a_tied_tensor_is_frozen_under_both_names() -> None:
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    net["b"].weight = net["a"].weight
    assert set(arm(net, {"b.weight": ()}).free()) == {"a.bias", "b.bias"}


def test_a_denoiser_that_is_gone_leaves_nothing_behind() -> None:
    unet = tiny_unet()
    gone = weakref.ref(unet)
    arm(unet, FROZEN)
    del unet
    gc.collect()
    assert gone() is None


def test_nan_is_recognised_too() -> None:
    tensor = torch.tensor([float("nan"), 1.0])
    assert Stay.of(tensor, ()).is_in(tensor)
