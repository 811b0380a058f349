"""Whatever changes the output of a frozen layer is refused, however it is put there; on free layers it is welcome."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from torch import nn
from torch.nn import functional as F

from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from support.guarding import QUERY, VALUE, adamw, mask_of, tiny_unet, train

LAYER, FREE_LAYER = QUERY.removesuffix(".weight"), VALUE.removesuffix(".weight")


class Low(nn.Module):
    """Two factors, as every LoRA has them."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(self.down(x))  # type: ignore[no-any-return]


class Beside(Low):
    """Stands in for LyCORIS and kohya's networks: its own ``forward`` takes the layer's place."""

    def apply_to(self, layer: nn.Linear) -> None:
        self.layer = [layer]
        self.original = layer.forward
        layer.forward = self.forward  # type: ignore[method-assign]

    def restore(self) -> None:
        self.layer[0].forward = self.original  # type: ignore[method-assign]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.original(x) + super().forward(x)


class Patched(nn.Linear):
    """Stands in for code that exchanges a layer's class."""

    low: Any = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.low[0](x)  # type: ignore[no-any-return]


class Inside(nn.Linear):
    """Stands in for loralib: a layer of the same name with the same weight, and two more parameters."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias
        self.lora_A = nn.Parameter(torch.ones(2, layer.in_features))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + F.linear(F.linear(x, self.lora_A), self.lora_B)


class Carrier:
    """Stands in for a manager of hooks that is no module."""

    def __init__(self, low: Low) -> None:
        self.table = {"default": low}

    def add(self, _: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + self.table["default"](inputs[0])  # type: ignore[no-any-return]


Put = Callable[[Any, str], list[nn.Parameter]]


def method(unet: Any, name: str) -> list[nn.Parameter]:
    network = Beside(unet.get_submodule(name))
    network.apply_to(unet.get_submodule(name))
    return list(network.parameters())


def wrapped_function(unet: Any, name: str) -> list[nn.Parameter]:
    layer = unet.get_submodule(name)
    low, original = Low(layer), layer.forward

    @functools.wraps(original)
    def forward(x: torch.Tensor) -> torch.Tensor:
        return original(x) + low(x)  # type: ignore[no-any-return]

    layer.forward = forward
    return list(low.parameters())


def hook(unet: Any, name: str) -> list[nn.Parameter]:
    low = Low(unet.get_submodule(name))
    unet.get_submodule(name).register_forward_hook(Carrier(low).add)
    return list(low.parameters())


def hook_before(unet: Any, name: str) -> list[nn.Parameter]:
    scale = nn.Parameter(torch.ones(1))
    unet.get_submodule(name).register_forward_pre_hook(lambda _, inputs: (inputs[0] * scale,))
    return [scale]


def exchanged_class(unet: Any, name: str) -> list[nn.Parameter]:
    layer = unet.get_submodule(name)
    low = Low(layer)
    layer.low, layer.__class__ = [low], Patched
    return [*low.parameters(), *unet.conv_out.parameters()]


def replaced_layer(unet: Any, name: str) -> list[nn.Parameter]:
    parent, _, last = name.rpartition(".")
    layer = Inside(unet.get_submodule(name))
    setattr(unet.get_submodule(parent), last, layer)
    return [layer.lora_A, layer.lora_B]


def processor(unet: Any, name: str) -> list[nn.Parameter]:
    parent, _, last = name.rpartition(".")
    low = Low(unet.get_submodule(name))
    attention = unet.get_submodule(parent)
    attention.set_processor(_Processor(attention.processor, {f"{last}_lora": low}))
    return list(low.parameters())


class _Processor(nn.Module):
    """Stands in for the LoRA processors of older diffusers."""

    def __init__(self, inner: Any, parts: dict[str, nn.Module]) -> None:
        super().__init__()
        self.inner = inner
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, attention: nn.Module, states: torch.Tensor, **others: Any) -> torch.Tensor:
        extra = sum(part(states).sum() for name, part in self.named_children() if name.endswith("_lora"))
        return self.inner(attention, states, **others) + 0 * extra  # type: ignore[no-any-return]


WAYS = [method, wrapped_function, hook, hook_before, exchanged_class, replaced_layer, processor]
SELF = "attn1"
"""Self-attention, so that queries and values are read from states of one size."""


@pytest.mark.parametrize("put", WAYS)
def test_what_changes_the_output_of_a_frozen_layer_is_refused_before_its_first_step(put: Put) -> None:
    layer = LAYER.replace("attn2", SELF)
    unet = tiny_unet()
    Guard(unet, mask_of(unet, {f"{layer}.weight": ()}), every=50)
    parameters = put(unet, layer)
    before = [one.detach().clone() for one in parameters]
    with pytest.raises(MaskBrokenError, match="layer") as caught:
        train(unet, adamw(parameters), 1)
    assert caught.value.where == layer
    assert "exclude_modules" in caught.value.hint
    assert all(torch.equal(one, other) for one, other in zip(before, parameters, strict=True))
    with pytest.raises(MaskBrokenError):
        unet.state_dict()


@pytest.mark.parametrize("put", [method, wrapped_function, hook, replaced_layer, processor])
def test_what_is_there_before_the_guard_is_refused_at_once(put: Put) -> None:
    layer = LAYER.replace("attn2", SELF)
    unet = tiny_unet()
    mask = mask_of(unet, {f"{layer}.weight": ()})
    put(unet, layer)
    with pytest.raises(MaskBrokenError):
        Guard(unet, mask, every=50)
    assert unet.conv_in.weight.requires_grad


@pytest.mark.parametrize("put", WAYS)
def test_the_same_on_a_free_layer_is_trained(put: Put) -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=1)
    parameters = put(unet, FREE_LAYER.replace("attn2", SELF))
    before = [one.detach().clone() for one in parameters]
    train(unet, adamw(parameters), 1)
    guard.check()
    assert any(not torch.equal(one, other) for one, other in zip(before, parameters, strict=True))


def test_the_message_names_the_code_and_not_what_it_pretends_to_be() -> None:
    for put, name in ((method, "Beside replaced"), (wrapped_function, "wrapped_function.<locals>.forward replaced")):
        unet = tiny_unet()
        guard = Guard(unet, mask_of(unet), every=50)
        put(unet, LAYER)
        with pytest.raises(MaskBrokenError, match=name):
            guard.check()


def test_a_forward_that_was_given_back_is_the_layers_own() -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=1)
    network = Beside(unet.get_submodule(LAYER))
    network.apply_to(unet.get_submodule(LAYER))
    network.restore()
    train(unet, adamw(unet.parameters()), 1)
    guard.check()


def test_wrappers_that_move_and_hooks_that_look_are_welcome_on_frozen_layers() -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=1)
    layer, seen = unet.get_submodule(LAYER), []
    handle = layer.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    add_hook_to_module(layer, ModelHook())
    unet.enable_layerwise_casting(torch.float32, torch.float32)
    train(unet, adamw(guard.parameters()), 1)
    assert seen
    handle.remove()
    remove_hook_from_module(layer)
    train(unet, adamw(guard.parameters()), 1)
    guard.check()


def test_a_foreign_forward_under_a_wrapper_of_accelerate_is_seen() -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=1)
    method(unet, LAYER)
    add_hook_to_module(unet.get_submodule(LAYER), ModelHook())
    with pytest.raises(MaskBrokenError, match="Beside replaced"):
        guard.check()
