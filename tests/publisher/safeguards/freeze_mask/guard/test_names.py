"""A tensor has one name, whatever was wrapped around its layer or its network."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from publisher.safeguards.freeze_mask.guard.arming import arm
from publisher.safeguards.freeze_mask.guard.names import canonical, parameters_of, unwrapped
from support.guarding import FROZEN, QUERY, tiny_unet


@pytest.mark.parametrize(
    "name",
    [
        QUERY,
        f"module.{QUERY}",
        f"_orig_mod.{QUERY}",
        f"module._orig_mod.{QUERY}",
        f"base_model.model.{QUERY}",
        QUERY.replace(".weight", ".base_layer.weight"),
        QUERY.replace("mid_block.", "mid_block._orig_mod."),
        QUERY.replace(".attn2.", "._checkpoint_wrapped_module.attn2."),
        f"_fsdp_wrapped_module.{QUERY.replace('.weight', '.original_module.weight')}",
    ],
)
def test_wrappers_do_not_change_a_name(name: str) -> None:
    assert canonical(name) == QUERY


def test_names_that_only_look_like_a_wrappers_stay() -> None:
    for name in ("blocks.module.weight", "my_base_layer.weight", "base_model.weight"):
        assert canonical(name) == name
    assert canonical("conv_in.base_layer") == "conv_in"


def test_the_denoiser_is_found_inside_of_compile_data_parallel_and_peft() -> None:
    unet = tiny_unet()
    names = set(parameters_of(unet))
    compiled = torch.compile(unet, backend="eager")
    for wrapper in (unet, compiled, torch.nn.DataParallel(unet), torch.nn.DataParallel(compiled)):
        assert unwrapped(wrapper) is unet
    peft = get_peft_model(unet, LoraConfig(r=2, target_modules=["to_v"]))
    assert unwrapped(peft) is unet
    assert {name for name in parameters_of(peft) if ".lora_" not in name} == names
    arm(peft, FROZEN).check()
