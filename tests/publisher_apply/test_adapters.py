from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from apply_cases import CONV, KEY, LAYER, SCOPE, made, run, saved
from torch import Tensor

from publisher.api import Model, ModelError
from publisher_apply.adapters import METADATA

TEXT_LAYER = "text_model.encoder.layers.0.self_attn.q_proj"
LDM_LAYER = "input_blocks.3.1.transformer_blocks.0.attn2.to_k"


def factors(model: Model, component: str, layer: str, rank: int = 2) -> tuple[Tensor, Tensor]:
    shape = model.tensors(component)[f"{layer}.weight"].shape
    generator = torch.Generator().manual_seed(len(layer))
    down = torch.randn(rank, *shape[1:], generator=generator) / 10
    return down, torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=generator) / 10


def added(model: Model, component: str, layer: str, strength: float) -> Tensor:
    down, up = factors(model, component, layer)
    product = torch.einsum("or,r...->o...", up.double().flatten(1), down.double())
    weight = model.read(component, f"{layer}.weight")
    return (weight.double() + strength * product).to(weight.dtype)


def spelled(kind: str, layer: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    stem, alpha = layer.replace(".", "_"), torch.tensor(1.0)
    forms: dict[str, dict[str, Tensor]] = {
        "kohya": {
            f"lora_unet_{stem}.lora_down.weight": down,
            f"lora_unet_{stem}.lora_up.weight": up,
            f"lora_unet_{stem}.alpha": alpha,
        },
        "diffusers": {f"unet.{layer}.lora_A.weight": down, f"unet.{layer}.lora_B.weight": up},
        "peft": {f"base_model.model.{layer}.lora_A.weight": down, f"base_model.model.{layer}.lora_B.weight": up},
        "adapter": {f"{layer}.lora_A.default.weight": down, f"{layer}.lora_B.default.weight": up},
        "old": {f"unet.{layer}.lora.down.weight": down, f"unet.{layer}.lora.up.weight": up},
        "linear": {f"{layer}.lora_linear_layer.down.weight": down, f"{layer}.lora_linear_layer.up.weight": up},
        "processor": {
            f"{layer.removesuffix('.to_k')}.processor.to_k_lora.down.weight": down,
            f"{layer.removesuffix('.to_k')}.processor.to_k_lora.up.weight": up,
        },
    }
    return forms[kind]


@pytest.mark.parametrize(
    ("kind", "alpha"),
    [("kohya", 1), ("diffusers", 2), ("adapter", 2), ("old", 2), ("linear", 2), ("processor", 2)],
)
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_every_spelling_is_the_same_change(
    embedded: Model, tmp_path: Path, kind: str, alpha: int, scale: float
) -> None:
    file = saved(tmp_path / "lora.safetensors", spelled(kind, LAYER, *factors(embedded, "unet", LAYER)))
    written = run(embedded, {"w": file}, {"path": "w", "scale": scale}).written
    assert set(written) == {("unet", KEY)}
    assert torch.equal(written["unet", KEY], added(embedded, "unet", LAYER, scale * alpha / 2))


def test_convolutions_blocks_of_one_file_checkpoints_and_text_encoders_have_adapters_too(
    embedded: Model, tmp_path: Path
) -> None:
    tensors: dict[str, Tensor] = {}
    for prefix, layer, (component, own) in (
        ("lora_unet_", LDM_LAYER, ("unet", LAYER)),
        ("lora_unet_", CONV, ("unet", CONV)),
        ("lora_te_", TEXT_LAYER, ("text_encoder", TEXT_LAYER)),
    ):
        down, up = factors(embedded, component, own)
        stem = prefix + layer.replace(".", "_")
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    written = run(embedded, {"w": saved(tmp_path / "lora.safetensors", tensors)}, "w").written
    for component, layer in (("unet", LAYER), ("unet", CONV), ("text_encoder", TEXT_LAYER)):
        assert torch.equal(written.pop((component, f"{layer}.weight")), added(embedded, component, layer, 1.0))
    assert not written


@pytest.mark.parametrize(("rooted", "strength"), [(False, 3.0), (True, 6 / 2**0.5)])
def test_pefts_configuration_beside_the_file_gives_the_strength(
    embedded: Model,
    tmp_path: Path,
    rooted: bool,  # noqa: FBT001
    strength: float,
) -> None:
    file = saved(
        tmp_path / "l" / "adapter_model.safetensors", spelled("peft", LAYER, *factors(embedded, "unet", LAYER))
    )
    (file.parent / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6, "use_rslora": rooted}))
    written = run(embedded, {"w": file.parent}, "w").written
    torch.testing.assert_close(written["unet", KEY], added(embedded, "unet", LAYER, strength), rtol=0, atol=1e-7)


def test_the_configuration_that_diffusers_puts_into_the_file_gives_the_strength(
    embedded: Model, tmp_path: Path
) -> None:
    tensors = spelled("diffusers", LAYER, *factors(embedded, "unet", LAYER))
    file = saved(tmp_path / "l.safetensors", tensors, {METADATA: json.dumps({"unet.lora_alpha": 4, "unet.r": 2})})
    assert torch.equal(run(embedded, {"w": file}, "w").written["unet", KEY], added(embedded, "unet", LAYER, 2.0))


def test_a_lora_is_baked_as_diffusers_fuses_it(embedded: Model, tmp_path: Path, pipeline: Any) -> None:
    from copy import deepcopy

    tensors = spelled("diffusers", LAYER, *factors(embedded, "unet", LAYER))
    tensors |= {f"unet.{CONV}.lora_{x}.weight": y for x, y in zip("AB", factors(embedded, "unet", CONV), strict=True)}
    file = saved(tmp_path / "pytorch_lora_weights.safetensors", tensors)
    unet = deepcopy(pipeline.unet)
    unet.load_lora_adapter(str(tmp_path), weight_name=file.name, prefix="unet")
    unet.fuse_lora(lora_scale=0.7)
    unet.unload_lora()
    written = run(embedded, {"w": file}, {"path": "w", "scale": 0.7}).written
    theirs = unet.state_dict()
    for (_, name), one in written.items():
        torch.testing.assert_close(one, theirs[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lora_unet_{}.dora_scale", "DoRA"),
        ("unet.{}.lora_magnitude_vector", "DoRA"),
        ("base_model.model.{}.lora_magnitude_vector.weight", "DoRA"),
        ("lora_unet_{}.lora_mid.weight", "LoCon"),
        ("lycoris_unet_{}.hada_w1_a", "LoHa"),
        ("lora_unet_{}.lokr_w1", "LoKr"),
        ("lora_unet_{}.oft_blocks", "OFT"),
        ("lora_unet_{}.diff", "full"),
        ("lora_unet_{}.diff_b", "full"),
        ("base_model.model.{}.ia3_l", "IA3"),
        ("unet.{}.lora_B.bias", "bias"),
    ],
)
def test_other_adapters_are_refused_by_their_name(embedded: Model, tmp_path: Path, key: str, said: str) -> None:
    tensors = spelled("kohya", LAYER, *factors(embedded, "unet", LAYER))
    tensors[key.format(LAYER.replace(".", "_") if "unet_" in key else LAYER)] = torch.ones(2)
    step, params = made({"w": saved(tmp_path / "l.safetensors", tensors)}, "w")
    with pytest.raises(ModelError, match=said) as caught:
        step.plan(params, SCOPE, embedded)
    assert "Merge it" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"unet.{LAYER}.lora_A.weight"), "one factor of"),
        (lambda t: t.update({f"unet.{LAYER}.lora_A.weight": torch.ones(3, 8)}), "do not fit"),
        (
            lambda t: t.update(
                {"unet.nowhere.lora_A.weight": torch.ones(2, 8), "unet.nowhere.lora_B.weight": torch.ones(8, 2)}
            ),
            "'unet.nowhere', which the model does not have",
        ),
        (lambda t: t.update({"unet.nowhere.alpha": torch.ones(())}), "alpha without factors"),
        (lambda t: t.update({"unet.other": torch.ones(1)}), "belongs to none"),
    ],
)
def test_damaged_adapters_are_refused(embedded: Model, tmp_path: Path, change: Any, said: str) -> None:
    tensors = spelled("diffusers", LAYER, *factors(embedded, "unet", LAYER))
    change(tensors)
    step, params = made({"w": saved(tmp_path / "l.safetensors", tensors)}, "w")
    with pytest.raises(ModelError, match=said):
        step.plan(params, SCOPE, embedded)


def test_pefts_files_without_their_strength_are_refused(embedded: Model, tmp_path: Path) -> None:
    file = saved(tmp_path / "l.safetensors", spelled("peft", LAYER, *factors(embedded, "unet", LAYER)))
    step, params = made({"w": file}, "w")
    with pytest.raises(ModelError, match="keeps the strength") as caught:
        step.plan(params, SCOPE, embedded)
    assert "adapter_config.json" in caught.value.hint


@pytest.mark.parametrize("key", ["alpha_pattern", "use_dora", "lora_bias"])
def test_configurations_that_are_not_read_are_refused(embedded: Model, tmp_path: Path, key: str) -> None:
    file = saved(tmp_path / "adapter_model.safetensors", spelled("peft", LAYER, *factors(embedded, "unet", LAYER)))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 6, key: {"x": 1}}))
    assert file.is_file()
    step, params = made({"w": tmp_path}, "w")
    with pytest.raises(ModelError, match=key):
        step.plan(params, SCOPE, embedded)


def test_a_lora_that_changes_nothing_is_refused(embedded: Model, tmp_path: Path) -> None:
    down, up = factors(embedded, "unet", LAYER)
    file = saved(tmp_path / "l.safetensors", spelled("kohya", LAYER, down, torch.zeros_like(up)))
    with pytest.raises(ModelError, match="change nothing"):
        run(embedded, {"w": file}, "w")
