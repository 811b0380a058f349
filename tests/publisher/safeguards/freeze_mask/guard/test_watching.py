"""What training scripts do to frozen tensors is noticed at the next optimizer step."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_pre_hooks, register_optimizer_step_pre_hook

from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from support.guarding import FEED, FROZEN, QUERY, VALUE, adamw, loss, mask_of, tiny_unet, train


@pytest.fixture
def unet() -> Any:
    return tiny_unet()


def guarded(unet: Any, every: int = 50) -> Guard:
    return Guard(unet, mask_of(unet), every=every)


def test_a_whole_tensor_that_asks_for_gradients_again_is_named_before_the_step(unet: Any) -> None:
    guard = guarded(unet)
    optimizer = adamw(unet.parameters())
    unet.requires_grad_(True)
    with pytest.raises(MaskBrokenError, match=r"requires_grad_\(True\)") as caught:
        train(unet, optimizer, 1)
    assert caught.value.where == "conv_in.bias"
    guard.check()  # nothing has changed yet


def test_a_gradient_that_somebody_writes_is_enough(unet: Any) -> None:
    guarded(unet)
    query = unet.get_parameter(QUERY)
    query.grad = torch.ones_like(query)
    with pytest.raises(MaskBrokenError, match="made trainable"):
        adamw([query]).step()


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor, torch.optim.RMSprop])
def test_weight_decay_and_momentum_of_any_torch_optimizer_leave_frozen_rows_alone(unet: Any, kind: Any) -> None:
    guard = guarded(unet, every=1)
    train(unet, kind(unet.parameters(), lr=1e-2, weight_decay=0.1), 3)
    guard.check()


def test_the_optimizer_keeps_state_only_of_what_may_be_trained(unet: Any) -> None:
    guard = guarded(unet)
    optimizer = adamw(guard.parameters())
    train(unet, optimizer, 1)
    named = dict(guard.named_parameters())
    assert set(named) == {name for name, _ in unet.named_parameters()} - {"conv_in.weight", "conv_in.bias", QUERY}
    assert {id(one) for one in optimizer.state} == {id(one) for one in named.values()}


def test_what_the_script_freezes_itself_is_not_offered(unet: Any) -> None:
    guard = guarded(unet)
    unet.get_parameter(VALUE).requires_grad_(False)
    assert VALUE not in dict(guard.named_parameters())
    assert FEED in dict(guard.named_parameters())


def test_a_change_by_hand_is_seen_within_some_steps(unet: Any) -> None:
    guard = guarded(unet, every=2)
    optimizer = adamw(unet.parameters())
    with torch.no_grad():
        unet.get_parameter(QUERY)[0] = 0
    train(unet, optimizer, 1)
    with pytest.raises(MaskBrokenError, match="has changed"):
        train(unet, optimizer, 1)
    guard.release()


def test_looks_take_turns_so_that_every_tensor_has_its_own(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("publisher.safeguards.freeze_mask.guard.guard.HANDFUL", 1)
    guard = guarded(unet, every=1)
    seen: list[str] = []
    monkeypatch.setattr(guard._armed, "check", seen.extend)
    for _ in range(5):
        guard.on_step_end()
    assert seen == [*sorted(FROZEN), "conv_in.bias"]


def test_a_layer_that_is_replaced_is_noticed_at_the_next_step(unet: Any) -> None:
    guard = guarded(unet)
    optimizer = adamw(guard.parameters())
    unet.conv_in = nn.Conv2d(4, 16, 3, padding=1)
    with pytest.raises(MaskBrokenError, match="has changed") as caught:
        train(unet, optimizer, 1)
    assert caught.value.where == "conv_in.bias"


def test_equal_tensors_in_new_places_are_watched_from_then_on(unet: Any) -> None:
    guard = guarded(unet)
    unet.load_state_dict({name: tensor.clone() for name, tensor in unet.state_dict().items()}, assign=True)
    train(unet, adamw(unet.parameters()), 1)
    guard.check()
    unet.requires_grad_(True)
    with pytest.raises(MaskBrokenError, match="made trainable"):
        train(unet, adamw(unet.parameters()), 1)


def test_a_parametrised_weight_is_no_longer_the_frozen_one(unet: Any) -> None:
    guard = guarded(unet)
    nn.utils.parametrize.register_parametrization(unet.conv_in, "weight", nn.Tanh())
    with pytest.raises(MaskBrokenError, match=r"conv_in\.parametrizations\.weight\.original' acts on a layer"):
        guard.before_step()


def test_other_optimizers_call_it_themselves(unet: Any) -> None:
    guard = guarded(unet)
    loss(unet).backward()
    with torch.no_grad():
        for tensor in guard.parameters():
            tensor.mul_(0.9)
    with pytest.raises(MaskBrokenError):
        guard.check()
    guard.on_step_end()
    guard.check()


def test_optimizers_of_other_models_step_whatever_happened_to_this_one(unet: Any) -> None:
    guarded(unet)
    unet.requires_grad_(True)
    other = nn.Linear(2, 2)
    other(torch.ones(2)).sum().backward()
    adamw(other.parameters()).step()
    with pytest.raises(MaskBrokenError):
        train(unet, adamw(unet.parameters()), 1)


def test_a_guard_nobody_holds_watches_as_long_as_the_denoiser_lives(unet: Any) -> None:
    gone = weakref.ref(guarded(unet))
    gc.collect()
    unet.requires_grad_(True)
    with pytest.raises(MaskBrokenError):
        train(unet, adamw(unet.parameters()), 1)
    found = gone()
    assert found is not None
    found.release()


def test_a_denoiser_that_is_gone_takes_its_guard_with_it() -> None:
    unet = tiny_unet()
    gone = weakref.ref(guarded(unet))
    del unet
    gc.collect()
    assert gone() is None


def test_the_block_ends_with_a_look_at_everything(unet: Any) -> None:
    with guarded(unet) as guard:
        train(unet, adamw(guard.parameters()), 1)
    assert all(tensor.requires_grad for tensor in unet.parameters())
    with pytest.raises(MaskBrokenError, match="has changed"), Guard(unet, mask_of(unet), every=50), torch.no_grad():
        unet.get_parameter(QUERY)[0] = 0
    assert unet.config["_freeze_mask_sha256"] is None
    unet.state_dict()  # nobody is asked any more


def test_an_error_in_the_block_is_shown_and_not_another_one(unet: Any) -> None:
    def script() -> None:
        with guarded(unet), torch.no_grad():
            unet.get_parameter(QUERY)[0] = 0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        script()


def test_a_guard_that_is_collected_in_the_middle_of_a_step_leaves_other_optimizers_alone() -> None:
    other = nn.Linear(2, 2)
    optimizer = adamw(other.parameters())
    other(torch.ones(2)).sum().backward()
    collect = register_optimizer_step_pre_hook(lambda *_: gc.collect() and None)
    unet = tiny_unet()
    gone = weakref.ref(guarded(unet))
    del unet
    try:
        optimizer.step()
    finally:
        collect.remove()
    assert gone() is None


def test_a_guard_that_is_released_in_the_middle_of_a_step_is_asked_no_more(unet: Any) -> None:
    guard = guarded(unet)
    release = register_optimizer_step_pre_hook(lambda *_: guard.release())
    try:
        train(unet, adamw(unet.parameters()), 1)
    finally:
        release.remove()
    unet.requires_grad_(True)
    train(unet, adamw(unet.parameters()), 1)


@pytest.mark.slow
def test_guards_of_a_sweep_leave_no_hooks_behind() -> None:
    guarded(tiny_unet())
    count = len(_global_optimizer_pre_hooks)
    for _ in range(3):
        guarded(tiny_unet())
        gc.collect()
    assert len(_global_optimizer_pre_hooks) == count
