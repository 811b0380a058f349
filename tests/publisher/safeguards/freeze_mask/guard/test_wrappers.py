"""The mask holds through what training scripts put around a denoiser."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from diffusers.training_utils import EMAModel
from torch import nn

from publisher.api.freeze_mask import Frozen
from publisher.errors import UsageError
from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError, NotTheModelError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from support.guarding import adamw, loss, mask_of, tiny_unet, train


@pytest.fixture
def unet() -> Any:
    return tiny_unet()


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield Accelerator(cpu=True, gradient_accumulation_steps=2)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def guarded(unet: Any) -> Guard:
    return Guard(unet, mask_of(unet), every=1)


def accelerated(unet: Any, accelerator: Accelerator) -> tuple[Any, Any]:
    """Return two optimizer steps of two batches each, as the example scripts train."""
    model, optimizer = accelerator.prepare(unet, adamw(unet.parameters()))
    for step in range(4):
        with accelerator.accumulate(model):
            accelerator.backward(loss(model, step))
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return model, optimizer


def test_it_survives_accelerate_with_accumulated_gradients(unet: Any, accelerator: Accelerator) -> None:
    before = unet.conv_out.weight.detach().clone()
    guard = guarded(unet)
    model, _ = accelerated(unet, accelerator)
    guard.check()
    assert guard._steps == 2
    assert not torch.equal(before, accelerator.unwrap_model(model).conv_out.weight)


def test_without_a_guard_accelerate_changes_every_frozen_tensor(unet: Any, accelerator: Accelerator) -> None:
    mask = mask_of(unet)
    accelerated(unet, accelerator)
    for tensor in mask.frozen:
        with pytest.raises(NotTheModelError, match="is not the published tensor"):
            Guard(unet, mask.model_copy(update={"frozen": (tensor,)}), every=1)


def test_it_survives_a_checkpoint_that_is_saved_and_resumed(
    unet: Any, accelerator: Accelerator, tmp_path: Path
) -> None:
    guard = guarded(unet)
    accelerated(unet, accelerator)
    accelerator.save_state(tmp_path)
    accelerator.load_state(tmp_path)
    train(unet, adamw(unet.parameters()), 1)
    guard.check()


def test_a_checkpoint_of_somebody_who_ignored_the_mask_is_noticed(
    unet: Any, accelerator: Accelerator, tmp_path: Path
) -> None:
    other = tiny_unet(1)
    accelerated(other, accelerator)
    accelerator.save_state(tmp_path)
    guard = guarded(unet)
    unet.load_state_dict(other.state_dict())
    with pytest.raises(MaskBrokenError, match="has changed"):
        train(unet, adamw(guard.parameters()), 1)


def test_it_survives_gradient_checkpointing(unet: Any) -> None:
    unet.to(memory_format=torch.channels_last).train().enable_gradient_checkpointing()
    guard = guarded(unet)
    train(unet, adamw(guard.parameters()))
    guard.check()


def test_averages_of_frozen_tensors_stay_equal(unet: Any) -> None:
    mask = mask_of(unet)
    guard = guarded(unet)
    averages = EMAModel(unet.parameters(), decay=0.9)
    optimizer = adamw(unet.parameters())
    for _ in range(3):
        train(unet, optimizer, 1)
        averages.step(unet.parameters())
    guard.release()
    free = unet.conv_out.weight.detach().clone()
    averages.copy_to(unet.parameters())
    assert not torch.equal(free, unet.conv_out.weight)
    Guard(unet, mask, every=1).check()


@pytest.mark.slow
def test_it_survives_compilation() -> None:
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3)).to(
        memory_format=torch.channels_last
    )
    frozen: Frozen = {"0.weight": (), "0.bias": (), "2.weight": ((0, 2),)}
    compiled = torch.compile(net, backend="aot_eager")
    guard = Guard(compiled, mask_of(net, frozen), every=1)
    before = net[2].weight.detach().clone()
    optimizer = adamw(guard.parameters())
    for _ in range(2):
        compiled(torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    guard.check()
    assert not torch.equal(before[2:], net[2].weight[2:])
    assert set(dict(guard.named_parameters())) == {"1.weight", "1.bias", "2.weight", "2.bias"}


def test_it_survives_data_parallel_with_its_prefix(unet: Any) -> None:
    model = nn.DataParallel(unet)
    guard = Guard(model, mask_of(unet), every=1)
    train(model, adamw(model.parameters()))
    guard.check()
    assert set(model.state_dict()) == {f"module.{name}" for name in unet.state_dict()}


@pytest.fixture
def distributed(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("distributed")
def test_it_survives_distributed_training_when_it_comes_first(unet: Any) -> None:
    mask = mask_of(unet)
    guard = Guard(unet, mask, every=1)
    model = nn.parallel.DistributedDataParallel(unet)
    train(model, adamw(model.parameters()))
    guard.check()
    guard.release()
    with pytest.raises(UsageError, match="before its tensors were frozen"):
        Guard(model, mask, every=1)  # its reducer waits for gradients that will not come


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda unet: pickle.loads(pickle.dumps(unet))])
def test_a_copy_is_not_guarded_and_can_be(unet: Any, copied: Any) -> None:
    mask = mask_of(unet)
    guard = Guard(unet, mask, every=1)
    other = copied(unet)
    with torch.no_grad():
        other.conv_in.weight[0] *= 2
        other.state_dict()
        guard.check()
        other.conv_in.weight[0] /= 2
    own = Guard(other, mask, every=1)
    train(other, adamw(own.parameters()))
    own.check()


def test_moving_and_casting_in_the_middle_of_training_is_no_change(unet: Any) -> None:
    guard = guarded(unet)
    train(unet, adamw(unet.parameters()), 1)
    unet.to(torch.bfloat16)
    train(unet, adamw(unet.parameters()), 1)
    unet.to(torch.float32)
    guard.check()
