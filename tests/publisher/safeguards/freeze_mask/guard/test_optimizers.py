"""Frozen tensors and rows stay under the optimizers and loops that people write, and the rest learns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from peft import LoraConfig
from torch import nn
from torch.optim.swa_utils import AveragedModel

from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from support.guarding import FROZEN, adamw, loss, mask_of, tiny_unet, train


class Averaging(torch.optim.Optimizer):
    """Stands in for schedule-free optimizers: trains at one point, and swaps in an average by ``eval``."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float = 0.1) -> None:
        super().__init__(parameters, {"lr": 1e-2, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None
        for group, tensor in self._trained():
            z = self.state[tensor].setdefault("z", tensor.clone())
            gradient = tensor.grad + group["decay"] * tensor
            tensor.lerp_(z, 0.3).sub_(gradient, alpha=0.1 * group["lr"])
            z.sub_(gradient, alpha=group["lr"])

    @torch.no_grad()
    def eval(self) -> None:
        for state, tensor in ((self.state[tensor], tensor) for _, tensor in self._trained()):
            tensor.lerp_(state["z"], -0.1)

    def _trained(self) -> list[tuple[dict[str, Any], nn.Parameter]]:
        return [(group, one) for group in self.param_groups for one in group["params"] if one.grad is not None]


class FromTheStart(torch.optim.Optimizer):
    """Stands in for Prodigy and D-Adaptation: keeps the first weights, and scales by the way from them."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None
        for tensor in (one for group in self.param_groups for one in group["params"] if one.grad is not None):
            first = self.state[tensor].setdefault("p0", tensor.clone())
            way = 1e-3 + float((first - tensor).norm())
            tensor.sub_(tensor.grad.sign() + 0.1 * tensor, alpha=way)


def steps(make: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]) -> Callable[[Any, Guard], None]:
    return lambda unet, _: train(unet, make(unet.parameters()), 2)


def closure(unet: Any, guard: Guard) -> None:
    optimizer = torch.optim.LBFGS(guard.parameters(), max_iter=2)

    def again() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(unet)
        value.backward()
        return value

    optimizer.step(again)


def mixed_precision(unet: Any, guard: Guard) -> None:
    optimizer, scaler = adamw(guard.parameters()), torch.amp.GradScaler("cpu")
    for step in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(unet, step)
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


def averaged_weights(unet: Any, _: Guard) -> None:
    mask, average = mask_of(unet), AveragedModel(unet)
    for _ in range(2):
        train(unet, adamw(unet.parameters()), 1)
        average.update_parameters(unet)
    average.module.state_dict()
    Guard(average.module, mask, every=1).release()


def lora_beside(unet: Any, guard: Guard) -> None:
    config = LoraConfig(r=2, target_modules=["to_q", "to_v", "to_out.0"], exclude_modules=guard.exclude_modules())
    unet.add_adapter(config)
    train(unet, adamw(guard.parameters()), 2)
    unet.fuse_lora()
    unet.unload_lora()


LOOPS = {
    "fused": steps(lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True)),
    "foreach": steps(lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, foreach=True)),
    "from the start": steps(FromTheStart),
    "averaging": steps(Averaging),
    "closure": closure,
    "mixed precision": mixed_precision,
    "averaged weights": averaged_weights,
    "LoRA beside": lora_beside,
}


@pytest.mark.parametrize("name", LOOPS)
def test_frozen_tensors_and_rows_stay_and_the_rest_learns(name: str) -> None:
    unet = tiny_unet()
    before = {key: tensor.detach().clone() for key, tensor in unet.named_parameters()}
    guard = Guard(unet, mask_of(unet), every=1)
    LOOPS[name](unet, guard)
    guard.check()
    moved = {key for key, tensor in unet.named_parameters() if not torch.equal(tensor, before[key])}
    assert len(moved) > 5
    assert not moved & {key for key, rows in FROZEN.items() if not rows}


def test_the_optimizer_may_be_there_before_the_guard() -> None:
    unet = tiny_unet()
    optimizer = adamw(unet.parameters())
    guard = Guard(unet, mask_of(unet), every=1)
    train(unet, optimizer, 2)
    guard.check()


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield Accelerator(cpu=True)
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()


def test_the_guard_may_come_after_accelerate(accelerator: Accelerator) -> None:
    unet = tiny_unet()
    mask = mask_of(unet)
    model, optimizer = accelerator.prepare(unet, adamw(unet.parameters()))
    guard = Guard(model, mask, every=1)
    for step in range(2):
        accelerator.backward(loss(model, step))
        optimizer.step()
        optimizer.zero_grad()
    guard.check()


def test_rows_that_an_average_moves_are_named_with_what_puts_them_back() -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=1)
    optimizer = Averaging(unet.parameters())
    loss(unet).backward()
    optimizer.step()
    optimizer.eval()
    with pytest.raises(MaskBrokenError, match="has changed") as caught:
        guard.check()
    assert "guard.on_step_end()" in caught.value.hint
    optimizer.zero_grad()
    guard.on_step_end()
    guard.check()
