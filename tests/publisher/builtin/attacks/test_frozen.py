"""Attacks that honour masks: what is frozen stays, adapters keep off frozen layers, and the rest is trained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from training_data import ATTACKS, begin, changed, data, fresh, tensors

from publisher.api import TrainingData, UsageError
from publisher.api.freeze_mask import Frozen

K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
OPTIONS: dict[str, dict[str, Any]] = {
    "full-finetune": {},
    "dreambooth": {},
    "cross-attention": {},
    "lora": {},
    "dreambooth-lora": {},
    "custom-diffusion": {},
    "textual-inversion": {},
}


def under(name: str, frozen: Frozen) -> TrainingData:
    attack = ATTACKS[name]()
    return data(attack, attack.Params(), frozen=frozen)


def half(pipeline: Any) -> Frozen:
    """Return every other tensor with two axes or more; of the first one alone, rows."""
    names = [name for name, weight in pipeline.unet.named_parameters() if weight.ndim > 1 and name != "conv_in.weight"]
    return dict.fromkeys(names[::2], ()) | {K: ()}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_what_is_frozen_stays_and_something_else_is_learned(folders: dict[str, Path], name: str) -> None:
    pipeline = fresh(folders["sd"])
    frozen, before = half(pipeline), tensors(pipeline)
    learner = begin(name, pipeline, said=under(name, frozen), lr=1e-2)
    for _ in range(2):
        learner.step()
    moved = changed(before, pipeline)
    assert moved
    assert not moved & {f"unet.{tensor}" for tensor in frozen}
    adapted = {re.sub(r"\.lora_[AB]\..*", "", one) for one in moved if ".lora_" in one}
    assert not adapted & {f"unet.{tensor.rpartition('.')[0]}" for tensor in frozen}


def test_rows_of_a_tensor_are_left_to_whoever_puts_them_back(folders: dict[str, Path]) -> None:
    pipeline = fresh(folders["sd"])
    before = tensors(pipeline)
    learner = begin("cross-attention", pipeline, said=under("cross-attention", {K: ((0, 2),)}), lr=1e-2)
    learner.step()
    assert f"unet.{K}" in changed(before, pipeline)


@pytest.mark.parametrize("frozen", [{K: ()}, {K: ((0, 1),)}])
def test_an_adapter_keeps_off_a_layer_with_any_frozen_weight(folders: dict[str, Path], frozen: Frozen) -> None:
    free, masked = fresh(folders["sd"]), fresh(folders["sd"])
    begin("lora", free, said=under("lora", {}))
    begin("lora", masked, said=under("lora", frozen))
    layers = [{name.partition(".lora_")[0] for name in tensors(one) if ".lora_" in name} for one in (free, masked)]
    assert layers[0] - layers[1] == {f"unet.{K.rpartition('.')[0]}"}


def test_a_frozen_bias_keeps_no_adapter_off(folders: dict[str, Path]) -> None:
    free, masked = fresh(folders["sd"]), fresh(folders["sd"])
    begin("lora", free, said=under("lora", {}))
    begin("lora", masked, said=under("lora", {K.replace("to_k.weight", "to_out.0.bias"): ()}))
    assert tensors(free).keys() == tensors(masked).keys()


@pytest.mark.parametrize("name", ["full-finetune", "dreambooth", "cross-attention", "lora", "dreambooth-lora"])
def test_an_attack_with_nothing_left_says_so(folders: dict[str, Path], name: str) -> None:
    pipeline = fresh(folders["sd"])
    everything: Frozen = {tensor: () for tensor, _ in pipeline.unet.named_parameters()}
    with pytest.raises(UsageError, match=f"all that the attack '{name}' trains is frozen"):
        begin(name, pipeline, said=under(name, everything))


def test_a_mask_cannot_hold_textual_inversion_back(folders: dict[str, Path]) -> None:
    pipeline = fresh(folders["sd"])
    everything: Frozen = {tensor: () for tensor, _ in pipeline.unet.named_parameters()}
    assert begin("textual-inversion", pipeline, said=under("textual-inversion", everything)).step() > 0
