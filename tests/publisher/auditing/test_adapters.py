"""Audits of adapters: they comply if they sit on no frozen layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from support.auditing import (
    NORM,
    TO_K,
    TO_V,
    Check,
    K,
    N,
    network,
    reasons,
    save,
    trained,
)


def peft(layer: str) -> dict[str, torch.Tensor]:
    return {f"base_model.model.{layer}.lora_{factor}.weight": torch.ones(2, 2) for factor in "AB"}


def diffusers(layer: str) -> dict[str, torch.Tensor]:
    return {f"unet.{layer}.lora.{factor}.weight": torch.ones(2, 2) for factor in ("down", "up")}


def kohya(layer: str) -> dict[str, torch.Tensor]:
    stem = f"lora_unet_{layer.replace('.', '_')}"
    return {f"{stem}.lora_down.weight": torch.ones(2, 2), f"{stem}.alpha": torch.tensor(1.0)}


def dotted(layer: str) -> dict[str, torch.Tensor]:
    return {f"lora_unet.{layer}.lora_{factor}.weight": torch.ones(2, 2) for factor in ("down", "up")}


def comfy(layer: str) -> dict[str, torch.Tensor]:
    return {f"diffusion_model.{layer}.lora_{factor}.weight": torch.ones(2, 2) for factor in "AB"}


def lycoris(layer: str) -> dict[str, torch.Tensor]:
    return {f"lycoris_{layer.replace('.', '_')}.lokr_w{number}": torch.ones(2, 2) for number in (1, 2)}


def with_text_encoder(layer: str) -> dict[str, torch.Tensor]:
    layers = (
        "text_encoder.text_model.encoder.layers.0",
        "text_encoder.encoder.layers.0",
    )  # until transformers 5, and now
    return diffusers(layer) | {f"{one}.q_proj.lora_A.weight": torch.ones(2, 2) for one in layers}


LAYERS = [peft, diffusers, kohya, dotted, comfy, lycoris, with_text_encoder]


@pytest.mark.parametrize("layout", LAYERS)
@pytest.mark.parametrize(("layer", "verdict"), [(TO_V, "complies"), (TO_K, "does-not-comply")])
def test_a_lora_complies_if_it_is_on_no_frozen_layer(
    tmp_path: Path, check: Check, layout: Callable[[str], Mapping[str, torch.Tensor]], layer: str, verdict: str
) -> None:
    found = check(save(tmp_path / "lora/pytorch_lora_weights.safetensors", layout(layer)).parent)
    assert found.verdict == verdict
    (adapter,) = found.adapters
    assert adapter.layers == 1
    assert adapter.frozen_layers == ((TO_K,) if layer == TO_K else ())


def test_norms_that_a_trainer_keeps_in_a_lora_are_seen(tmp_path: Path, check: Check) -> None:
    stem = f"lora_unet_{NORM.replace('.', '_')}"
    found = check(save(tmp_path / "norms.safetensors", {f"{stem}.w_norm": torch.ones(48)}))
    assert (found.verdict, found.adapters[0].frozen_layers) == ("does-not-comply", (NORM,))


@pytest.mark.parametrize("name", ["emb_params", "<cat-toy>"])
def test_a_learned_embedding_alone_has_nothing_to_compare(tmp_path: Path, check: Check, name: str) -> None:
    found = check(save(tmp_path / "embedding.safetensors", {name: torch.ones(2, 4)}))
    assert found.verdict == "not-comparable"


def test_an_adapter_beside_untouched_weights_is_seen(pipeline: Path, check: Check) -> None:
    save(pipeline / "pytorch_lora_weights.safetensors", diffusers(TO_K))
    found = check(pipeline)
    assert found.verdict == "does-not-comply"
    assert found.weights[0].violations == ()


def test_an_adapter_inside_a_weights_file_is_seen(tmp_path: Path, check: Check) -> None:
    tensors = trained(**peft(TO_K))
    tensors[f"{TO_K}.base_layer.weight"] = tensors.pop(K)
    found = check(save(tmp_path / "m.safetensors", tensors))
    assert found.weights[0].violations == ()
    assert found.adapters[0].frozen_layers == (TO_K,)


def test_a_copy_of_a_frozen_tensor_in_an_adapter_file_is_compared(tmp_path: Path, check: Check) -> None:
    saved = {**peft(TO_V), f"base_model.model.{N}": network()[N] + 1}
    found = check(save(tmp_path / "adapter_model.safetensors", saved))
    assert found.verdict == "does-not-comply"
    assert [one.name for one in found.weights[0].violations] == [N]


def test_adapters_of_unknown_layers_are_not_waved_through(tmp_path: Path, check: Check) -> None:
    names = {"lora_unet_input_blocks_1_1_proj_in.lora_down.weight": torch.ones(2, 2), **kohya(TO_V)}
    found = check(save(tmp_path / "lora.safetensors", names))
    assert found.verdict == "undecided"
    assert "unknown layers: lora_unet_input_blocks_1_1_proj_in" in reasons(found)["lora.safetensors"]


def test_an_adapter_of_a_text_encoder_alone_has_nothing_to_compare(tmp_path: Path, check: Check) -> None:
    found = check(save(tmp_path / "lora.safetensors", {"lora_te_x.lora_down.weight": torch.ones(2, 2)}))
    assert (found.verdict, found.adapters[0].elsewhere) == ("not-comparable", 1)
