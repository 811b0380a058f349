"""Names of adapters as the tools write them."""

from __future__ import annotations

import pytest

from publisher.api.weight_names import Layers, frozen_layers

ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
TO_Q, TO_OUT, CONV = f"{ATTENTION}.to_q", f"{ATTENTION}.to_out.0", "conv_in"
TENSORS = [f"{TO_Q}.weight", f"{TO_OUT}.weight", f"{TO_OUT}.bias", f"{CONV}.weight", f"{CONV}.bias"]
STEM = TO_Q.replace(".", "_")
LAYERS = Layers("unet", TENSORS)


@pytest.mark.parametrize(
    "name",
    [
        f"base_model.model.{TO_Q}.lora_A.weight",
        f"base_model.model.{TO_Q}.lora_B.default.weight",
        f"base_model.model.{TO_Q}.lora_magnitude_vector",
        f"base_model.model.{TO_Q}.ia3_l",
        f"base_model.model.{TO_Q}.hada_w1_a",
        f"base_model.model.{TO_Q}.oft_R.weight",
        f"unet.{TO_Q}.lora_A.weight",
        f"unet.{TO_Q}.lora.down.weight",
        f"{TO_Q}.lora.up.weight",
        f"{ATTENTION}.processor.to_q_lora.down.weight",
        f"unet.{ATTENTION}.processor.to_q_lora.up.weight",
        f"lora_unet_{STEM}.lora_down.weight",
        f"lora_unet_{STEM}.alpha",
        f"lora_unet_{STEM}.dora_scale",
        f"lycoris_{STEM}.lokr_w1",
        f"module.{TO_Q}.something_new",
    ],
)
def test_an_adapter_is_on_its_layer(name: str) -> None:
    found = LAYERS.sort([name])
    assert found.adapters == {TO_Q: {f"{TO_Q}.weight"}}
    assert not found.other


@pytest.mark.parametrize(
    "name",
    [
        "transformer.{layer}.lora_A.weight",
        "transformer.{layer}.lora_B.default.weight",
        "base_model.model.transformer.{layer}.lora_A.weight",
        "diffusion_model.{layer}.lora_A.weight",
        "lora_unet_{stem}.lora_down.weight",
        "lora_transformer_{stem}.lora_down.weight",
        "lycoris_transformer_{stem}.lokr_w1",
        "lycoris_{stem}.lokr_w1",
    ],
)
@pytest.mark.parametrize("layer", ["transformer_blocks.0.attn2.to_k", "single_transformer_blocks.1.attn.to_q"])
def test_an_adapter_of_a_transformer_is_on_its_layer(layer: str, name: str) -> None:
    found = Layers("transformer", [f"{layer}.weight", f"{layer}.bias"]).sort(
        [name.format(layer=layer, stem=layer.replace(".", "_"))]
    )
    assert found.adapters == {layer: {f"{layer}.weight"}}
    assert not found.other


def test_the_oldest_names_of_diffusers_mean_the_linear_layer_of_to_out() -> None:
    assert set(LAYERS.sort([f"{ATTENTION}.processor.to_out_lora.up.weight"]).adapters) == {TO_OUT}


@pytest.mark.parametrize(
    ("part", "touched"),
    [
        ("lora_A.weight", {"weight"}),
        ("lora_B.weight", {"weight"}),
        ("lora_B.bias", {"weight", "bias"}),
        ("diff", {"weight"}),
        ("diff_b", {"weight", "bias"}),
        ("ia3_l", {"weight", "bias"}),
    ],
)
def test_factors_leave_a_bias_alone_and_other_parts_do_not(part: str, touched: set[str]) -> None:
    assert LAYERS.sort([f"{CONV}.{part}"]).adapters == {CONV: {f"{CONV}.{name}" for name in touched}}


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.text_model.encoder.layers.0.mlp.fc1.lora_B.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
    ],
)
def test_an_adapter_of_a_text_encoder_is_none_of_the_denoiser(name: str) -> None:
    found = LAYERS.sort([name])
    assert (found.text, found.adapters, found.other) == ([name], {}, [])


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_input_blocks_1_1_proj_in.lora_down.weight",
        "unet.mid_block.attentions.0.proj_in.lora_A.weight",
        "image_proj.weight",
        f"{TO_Q}_more.weight",
    ],
)
def test_a_layer_that_the_network_lacks_is_never_guessed(name: str) -> None:
    assert LAYERS.sort([name]).other == [name]


@pytest.mark.parametrize(
    "name",
    [
        f"{TO_Q}.base_layer.weight",
        f"base_model.model.{TO_Q}.weight",
        f"unet.{TO_Q}.weight",
        f"_orig_mod.module.{TO_Q}.weight",
        f"{TO_Q}.modules_to_save.default.weight",
    ],
)
def test_wrappers_leave_a_tensor_what_it_is(name: str) -> None:
    assert LAYERS.sort([name]).tensors == {f"{TO_Q}.weight": name}


def test_two_tensors_for_one_are_said() -> None:
    assert LAYERS.sort([f"{TO_Q}.weight", f"unet.{TO_Q}.weight"]).twice == [f"{TO_Q}.weight"]


def test_frozen_layers_are_those_whose_touched_tensors_are_frozen() -> None:
    adapters = LAYERS.sort([f"{CONV}.lora_A.weight", f"{TO_Q}.lora_A.weight"]).adapters
    assert frozen_layers(adapters, [f"{CONV}.bias"]) == ()
    assert frozen_layers(adapters, [f"{CONV}.weight", f"{TO_OUT}.weight"]) == (CONV,)
