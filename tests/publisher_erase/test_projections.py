from __future__ import annotations

from dataclasses import replace

import pytest
from erase_fakes import KEY, SD1, VALUE, Headers, projections

from publisher.api import Model, ModelError, TextEncoder, cross_attention
from publisher_erase.tensors import check_encoders, find_projections


def test_keys_and_values_of_cross_attention_are_found_by_exact_suffix() -> None:
    model = Headers().add("down_blocks.0.attn1.to_k.weight").add("my_attn2.to_k.weight").add("x.attn2.to_q.weight")
    assert find_projections(model) == tuple(sorted(projections()))


def test_every_cross_attention_layer_of_the_embedded_model_has_two(embedded: Model) -> None:
    assert len(find_projections(embedded)) == 2 * len(cross_attention(embedded))


def test_a_denoiser_without_cross_attention_is_refused() -> None:
    with pytest.raises(ModelError, match="has no layer attn2"):
        find_projections(Headers(projections(0)))


def test_a_layer_with_keys_alone_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'up_blocks\.7\.attn2' has keys or values alone"):
        find_projections(Headers().add("up_blocks.7.attn2.to_k.weight"))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("down_blocks.0.attn2.to_kv.weight", "fused"),
        ("down_blocks.0.attn1.to_qkv.weight", "fused"),
        ("down_blocks.0.attn2.to_k.lora_A.default.weight", "LoRA"),
        ("down_blocks.0.attn2.to_k.base_layer.weight", "LoRA"),
        ("down_blocks.0.attn2.to_k.bias", "bias"),
        ("down_blocks.0.attn2.processor.to_k_ip.0.weight", "image-prompt"),
        ("encoder_hid_proj.weight", "image-prompt"),
    ],
)
def test_a_denoiser_for_which_the_edit_would_mislead_is_refused(name: str, what: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        find_projections(Headers().add(name))
    assert name in str(caught.value)


def test_projected_text_embeddings_are_refused() -> None:
    with pytest.raises(ModelError, match="encoder_hid_dim_type"):
        find_projections(Headers(configs={"unet": {"encoder_hid_dim_type": "text_proj"}}))


@pytest.mark.parametrize("dtype", ["I8", "U8", "F8_E4M3"])
def test_quantised_projections_are_refused(dtype: str) -> None:
    with pytest.raises(ModelError, match="quantised"):
        find_projections(Headers(projections(dtype=dtype)))


def test_projections_of_another_width_are_refused() -> None:
    with pytest.raises(ModelError, match="does not read 8 numbers a token"):
        find_projections(Headers(projections(width=9)))


@pytest.mark.parametrize("gone", ["text_encoder", "tokenizer"])
def test_a_missing_encoder_or_tokenizer_is_refused(gone: str) -> None:
    parts = tuple(part for part in ("text_encoder", "tokenizer", "unet") if part != gone)
    with pytest.raises(ModelError, match=f"{gone}: is missing"):
        check_encoders(Headers(components=parts))


def test_encoders_whose_widths_do_not_add_up_are_refused() -> None:
    wide = replace(SD1, text_encoders=(TextEncoder("text_encoder", "tokenizer", 5),))
    with pytest.raises(ModelError, match="give 5 numbers a token, cross-attention reads 8"):
        check_encoders(Headers(anatomy=wide))


def test_names_are_of_keys_and_values_alone() -> None:
    assert {name.endswith((KEY, VALUE)) for name in find_projections(Headers())} == {True}
