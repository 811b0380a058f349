"""Adapters of every kind on frozen layers are refused, added before or after; elsewhere they are welcome."""

from __future__ import annotations

from typing import Any

import pytest
from peft import (
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    get_peft_model,
    inject_adapter_in_model,
)

from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError
from publisher.safeguards.freeze_mask.guard.guard import Guard
from support.guarding import FROZEN, QUERY, VALUE, adamw, mask_of, tiny_unet, train

LAYER, FREE_LAYER = QUERY.removesuffix(".weight"), VALUE.removesuffix(".weight")


def kinds(layer: str) -> dict[str, PeftConfig]:
    targets = [layer]
    return {
        "LoRA": LoraConfig(r=2, target_modules=targets),
        "DoRA": LoraConfig(r=2, target_modules=targets, use_dora=True),
        "LoHa": LoHaConfig(r=2, target_modules=targets),
        "LoKr": LoKrConfig(r=2, target_modules=targets),
        "OFT": OFTConfig(r=0, oft_block_size=4, target_modules=targets),
        "IA3": IA3Config(target_modules=targets, feedforward_modules=[]),
    }


@pytest.mark.parametrize("kind", list(kinds("x")))
def test_an_adapter_on_a_frozen_layer_is_refused_by_kind_and_layer_at_the_next_step(kind: str) -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=50)
    inject_adapter_in_model(kinds(LAYER)[kind], unet)
    with pytest.raises(MaskBrokenError, match=f"the {kind} adapter 'default' sits on a layer that the mask") as caught:
        train(unet, adamw(guard.parameters()), 1)
    assert caught.value.where == LAYER
    assert "exclude_modules" in caught.value.hint
    with pytest.raises(MaskBrokenError):
        unet.state_dict()


@pytest.mark.parametrize("kind", list(kinds("x")))
def test_an_adapter_on_a_free_layer_is_trained(kind: str) -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=1)
    inject_adapter_in_model(kinds(FREE_LAYER)[kind], unet)
    train(unet, adamw(guard.parameters()))
    guard.check()


def test_adapters_that_are_there_before_are_refused_at_once() -> None:
    unet = tiny_unet()
    mask = mask_of(unet)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"]), "mine")
    with pytest.raises(MaskBrokenError, match="the LoRA adapter 'mine'"):
        Guard(unet, mask, every=50)
    unet.delete_adapters("mine")  # its empty shell is left, and another one moves in
    guard = Guard(unet, mask, every=50)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), "other")
    with pytest.raises(MaskBrokenError, match="the LoRA adapter 'other'"):
        train(unet, adamw(guard.parameters()), 1)


def test_trainable_copies_of_frozen_layers_are_refused() -> None:
    unet = tiny_unet()
    mask = mask_of(unet)
    get_peft_model(unet, LoraConfig(r=2, target_modules=["to_v"], modules_to_save=["mid_block"]))
    with pytest.raises(MaskBrokenError, match="a trainable copy"):
        Guard(unet, mask, every=50)


def test_a_frozen_bias_alone_does_not_keep_adapters_away() -> None:
    unet = tiny_unet()
    bias = "mid_block.attentions.0.proj_in.bias"
    guard = Guard(unet, mask_of(unet, {bias: ()}), every=1)
    assert guard.exclude_modules() == []
    unet.add_adapter(LoraConfig(r=2, target_modules=["proj_in"]))
    train(unet, adamw(guard.parameters()))
    guard.check()


def layers_with_adapters(unet: Any) -> set[str]:
    return {name.split(".lora_")[0] + ".weight" for name, _ in unet.named_parameters() if ".lora_A" in name}


def test_excluded_modules_keep_peft_off_frozen_layers() -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=1)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "conv_in"]
    unet.add_adapter(LoraConfig(r=2, target_modules=targets, exclude_modules=guard.exclude_modules()))
    assert VALUE in layers_with_adapters(unet)
    assert not layers_with_adapters(unet) & set(FROZEN)
    train(unet, adamw(guard.parameters()))
    guard.check()


def test_fused_projections_are_refused() -> None:
    unet = tiny_unet()
    guard = Guard(unet, mask_of(unet), every=50)
    unet.fuse_qkv_projections()
    with pytest.raises(MaskBrokenError, match="fused"):
        guard.check()
    unet.unfuse_qkv_projections()
    guard.check()
