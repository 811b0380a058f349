from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from apply_cases import CONV, KEY, LAYER, SCOPE, TEXT, UNET, changed, made, noise, run, saved, weights

from publisher.api import Model, ModelError, UsageError
from publisher.api.ldm_names import ldm_layers


@pytest.fixture
def folder(embedded: Model, tmp_path: Path) -> Path:
    """A copy of the embedded model."""
    found = tmp_path / "folder"
    shutil.copytree(embedded.folder, found)
    return found


def attention(model: Model) -> dict[str, torch.Tensor]:
    return {
        name: noise(one) for name, one in weights(model).items() if ".attn2.to_k." in name or ".attn2.to_v." in name
    }


@pytest.mark.parametrize("prefix", ["", "unet.", "model.diffusion_model.", "module."])
def test_keys_and_values_alone_take_their_places(embedded: Model, tmp_path: Path, prefix: str) -> None:
    tensors = attention(embedded)
    file = saved(tmp_path / "uce.safetensors", {f"{prefix}{name}": one for name, one in tensors.items()})
    written = run(embedded, {"w": file}, "w").written
    assert {name for _, name in written} == set(tensors)
    assert all(torch.equal(one, tensors[name]) for (_, name), one in written.items())


@pytest.mark.slow
def test_names_of_one_file_checkpoints_are_the_same_layers(embedded: Model, tmp_path: Path) -> None:
    tensors = {name: noise(one) for name, one in weights(embedded).items()}
    names = {layer: ldm for ldm, layer in ldm_layers(embedded.config("unet"), embedded.tensors("unet")).items()}
    assert len(names) == len({name.rpartition(".")[0] for name in tensors})
    ldm = {f"model.diffusion_model.{names[n.rpartition('.')[0]]}.{n.rpartition('.')[2]}": n for n in tensors}
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    theirs = convert_ldm_unet_checkpoint({key: tensors[name] for key, name in ldm.items()}, embedded.config("unet"))
    assert theirs.keys() == tensors.keys()
    assert all(torch.equal(one, tensors[name]) for name, one in theirs.items())
    file = saved(tmp_path / "ldm.safetensors", {key: tensors[name] for key, name in ldm.items()})
    written = run(embedded, {"w": file}, "w").written
    assert all(torch.equal(one, tensors[name]) for (_, name), one in written.items())


def test_bfloat16_goes_into_float32_without_loss_and_into_float16_with_a_count(embedded: Model, tmp_path: Path) -> None:
    tensors = {name: one.bfloat16() for name, one in attention(embedded).items()}
    file = saved(tmp_path / "esd.safetensors", tensors)
    step, params = made({"w": file}, "w")
    assert not any("rounded" in note for note in step.plan(params, SCOPE, embedded).notes)
    assert all(
        torch.equal(one, tensors[name].float()) for (_, name), one in run(embedded, {"w": file}, "w").written.items()
    )


def test_a_text_encoder_alone_is_told_by_its_names(embedded: Model, tmp_path: Path) -> None:
    name = "encoder.layers.0.mlp.fc1.weight"
    tensor = noise(embedded.read("text_encoder", f"text_model.{name}"))
    for key in (
        f"text_model.{name}",
        name,
        f"text_encoder.text_model.{name}",
        f"cond_stage_model.transformer.text_model.{name}",
    ):
        file = saved(tmp_path / "text.safetensors", {key: tensor})
        ((place, found),) = run(embedded, {"w": file}, "w").written.items()
        assert place == ("text_encoder", f"text_model.{name}")
        assert torch.equal(found, tensor)


def test_of_a_folder_the_tensors_that_differ_are_taken(embedded: Model, folder: Path) -> None:
    changed(folder / UNET, lambda tensors: tensors.update({KEY: noise(tensors[KEY])}))
    changed(folder / TEXT, lambda tensors: tensors.update({n: noise(t) for n, t in tensors.items() if "fc1.bias" in n}))
    written = run(embedded, {"w": folder}, "w").written
    assert {component for component, _ in written} == {"unet", "text_encoder"}
    assert [name for component, name in written if component == "unet"] == [KEY]
    only = run(embedded, {"w": folder}, {"path": "w", "component": "unet"}).written
    assert set(only) == {("unet", KEY)}


def test_one_components_folder_is_enough(embedded: Model, folder: Path) -> None:
    changed(folder / UNET, lambda tensors: tensors.update({KEY: noise(tensors[KEY])}))
    assert set(run(embedded, {"w": folder / "unet"}, "w").written) == {("unet", KEY)}


def test_later_entries_win_and_adapters_add_up(embedded: Model, tmp_path: Path) -> None:
    old = embedded.read("unet", KEY)
    first, second = noise(old, 1), noise(old, 2)
    files = {
        "a": saved(tmp_path / "a.safetensors", {KEY: first}),
        "b": saved(tmp_path / "b.safetensors", {KEY: second}),
    }
    rank = {
        f"unet.{LAYER}.lora_A.weight": torch.ones(1, old.shape[1]),
        f"unet.{LAYER}.lora_B.weight": torch.ones(old.shape[0], 1),
    }
    files["c"] = saved(tmp_path / "c.safetensors", rank)
    assert torch.equal(run(embedded, files, ["a", "b"]).written["unet", KEY], second)
    both = run(embedded, files, ["a", {"path": "c", "scale": 0.5}]).written["unet", KEY]
    assert torch.equal(both, (first.double() + 0.5).float())


def config(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "prediction_type"),
        ("unet/config.json", {"attention_head_dim": 2}, "attention_head_dim"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 20}, "model_max_length"),
    ],
)
def test_another_configuration_is_named_and_refused_until_the_manifest_says_what_to_do(
    embedded: Model, folder: Path, name: str, change: dict[str, Any], said: str
) -> None:
    changed(folder / UNET, lambda tensors: tensors.update({KEY: noise(tensors[KEY])}))
    config(folder, name, **change)
    step, params = made({"w": folder}, "w")
    with pytest.raises(UsageError, match=said):
        step.plan(params, SCOPE, embedded)
    step, params = made({"w": folder}, "w", differences="keep-base")
    assert any(said in note for note in step.plan(params, SCOPE, embedded).notes)


def test_who_saved_a_configuration_is_no_difference(embedded: Model, folder: Path) -> None:
    changed(folder / UNET, lambda tensors: tensors.update({KEY: noise(tensors[KEY])}))
    config(folder, "unet/config.json", _diffusers_version="0.1", _name_or_path="elsewhere")
    assert set(run(embedded, {"w": folder}, "w").written) == {("unet", KEY)}


def bad(folder: Path, kind: str, model: Model) -> Path:
    """Write weights with one fault."""
    old = model.read("unet", KEY)
    tensors = {
        "unknown": {KEY: noise(old), "elsewhere.weight": old},
        "shape": {KEY: old[:, :-1]},
        "nan": {KEY: torch.where(old == old[0, 0], torch.nan, old)},
        "same": {KEY: old},
        "integers": {KEY: old.int()},
        "empty": {},
    }
    if kind == "pickle":
        path = folder / "esd.pt"
        torch.save({KEY: old}, path)
        return path
    if kind == "text":
        path = folder / "bad.safetensors"
        path.write_text("<html>")
        return path
    return saved(folder / "bad.safetensors", tensors[kind])


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("unknown", "1 tensors that unet of the base model does not have: 'elsewhere.weight'"),
        ("shape", "has .* of shape"),
        ("nan", "NaN or infinity"),
        ("same", "changes nothing"),
        ("integers", "as I32, the base model as F32"),
        ("empty", "holds no tensor"),
        ("pickle", "is a pickle"),
        ("text", "is no safetensors file"),
    ],
)
def test_what_does_not_fit_is_refused_at_plan(embedded: Model, tmp_path: Path, kind: str, said: str) -> None:
    step, params = made({"w": bad(tmp_path, kind, embedded)}, "w")
    with pytest.raises(ModelError, match=said) as caught:
        step.plan(params, SCOPE, embedded)
    assert caught.value.hint or kind in ("text", "empty")


@pytest.mark.slow
def test_the_command_that_a_pickle_is_refused_with_converts_it(embedded: Model, tmp_path: Path) -> None:
    import subprocess
    import sys

    step, params = made({"w": bad(tmp_path, "pickle", embedded)}, "w")
    with pytest.raises(ModelError) as caught:
        step.plan(params, SCOPE, embedded)
    code = caught.value.hint.partition('python -c "')[2].removesuffix('"')
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    from safetensors.torch import load_file

    assert torch.equal(load_file(tmp_path / "esd.safetensors")[KEY], embedded.read("unet", KEY))


def test_an_incomplete_folder_is_refused(embedded: Model, folder: Path) -> None:
    changed(folder / UNET, lambda tensors: tensors.pop(f"{CONV}.weight"))
    step, params = made({"w": folder}, "w")
    with pytest.raises(ModelError, match=f"lacks 1 tensors of unet: {CONV}"):
        step.plan(params, SCOPE, embedded)


def test_a_component_that_the_model_lacks_is_refused(embedded: Model, folder: Path) -> None:
    step, params = made({"w": folder}, {"path": "w", "component": "transformer"})
    with pytest.raises(ModelError, match="names the component 'transformer'") as caught:
        step.plan(params, SCOPE, embedded)
    assert "unet" in caught.value.hint


def test_a_strength_for_whole_tensors_is_refused(embedded: Model, tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", {KEY: noise(embedded.read("unet", KEY))})
    step, params = made({"w": file}, {"path": "w", "scale": 0.5})
    with pytest.raises(ModelError, match="scale is for a LoRA alone"):
        step.plan(params, SCOPE, embedded)
