"""Which files of a diffusers folder make the model, and which folders are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from publisher.api import Anatomy, ModelError
from publisher.model.folder import ModelFolder, read_configs


def test_components_configurations_and_tensors_are_read_from_headers(toy: Path, anatomy: Anatomy) -> None:
    model = ModelFolder(toy, anatomy)
    assert model.components == ("text_encoder", "tokenizer", "unet")
    assert model.config("unet") == {"width": 4}
    assert list(model.tensors("unet")) == ["attn2.to_k.weight", "attn2.to_v.weight", "bias"]
    assert model.parameters == 12 + 16 + 16 + 4


def test_the_digest_is_of_the_content_not_of_the_place_or_the_card(toy: Path, anatomy: Anatomy, tmp_path: Path) -> None:
    before = ModelFolder(toy, anatomy).digest
    (toy / "README.md").write_text("a card")
    toy.rename(tmp_path / "elsewhere")
    assert ModelFolder(tmp_path / "elsewhere", anatomy).digest == before
    save_file({"embed": torch.ones(3, 4)}, tmp_path / "elsewhere" / "text_encoder" / "model.safetensors")
    assert ModelFolder(tmp_path / "elsewhere", anatomy).digest != before


def test_copies_of_the_weights_that_no_step_edits_are_left_out(toy: Path, anatomy: Anatomy) -> None:
    for name in ("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.non_ema.safetensors"):
        save_file({"a": torch.zeros(1)}, toy / name)
    (toy / "v1-5-pruned.ckpt").write_bytes(b"pickle")
    (toy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    model = ModelFolder(toy, anatomy)
    assert model.ignored == (
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "v1-5-pruned.ckpt",
    )
    assert not set(model.ignored) & set(model.files)


def test_weights_in_pickles_only_are_refused_with_the_way_out(toy: Path, anatomy: Anatomy) -> None:
    (toy / "unet" / "diffusion_pytorch_model.safetensors").rename(toy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only diffusion_pytorch_model.bin\n  Save the pipeline again"):
        ModelFolder(toy, anatomy)


def test_sharded_weights_are_one_component(toy: Path, anatomy: Anatomy) -> None:
    whole = toy / "unet" / "diffusion_pytorch_model.safetensors"
    whole.unlink()
    save_file({"a": torch.zeros(1)}, toy / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(1)}, toy / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors")
    weights = {
        "a": "diffusion_pytorch_model-00001-of-00002.safetensors",
        "b": "diffusion_pytorch_model-00002-of-00002.safetensors",
    }
    (toy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    model = ModelFolder(toy, anatomy)
    assert {name: info.file for name, info in model.tensors("unet").items()} == {
        "a": "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
        "b": "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
    }


def test_weights_that_the_loader_does_not_read_are_left_out(toy: Path, anatomy: Anatomy) -> None:
    beside = ("unet/pytorch_lora_weights.safetensors", "unet/diffusion_pytorch_model.ema_only.safetensors")
    for name in beside:
        save_file({"a": torch.zeros(1)}, toy / name)
    model = ModelFolder(toy, anatomy)
    assert sorted(model.ignored) == sorted(beside)
    assert list(model.tensors("unet")) == ["attn2.to_k.weight", "attn2.to_v.weight", "bias"]


@pytest.mark.parametrize(("part", "file"), [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")])
def test_of_one_file_and_shards_those_are_taken_that_the_loader_takes(
    toy: Path, anatomy: Anatomy, part: str, file: str
) -> None:
    save_file({"a": torch.zeros(1)}, toy / part / "shard.safetensors")
    (toy / part / f"{file}.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "shard.safetensors"}}))
    weights = sorted(name for name in ModelFolder(toy, anatomy).files if name.startswith(part) and "safetens" in name)
    shards = [f"{part}/{file}.safetensors.index.json", f"{part}/shard.safetensors"]
    assert weights == (shards if part == "unet" else [f"{part}/{file}.safetensors"])


def test_a_part_that_no_step_knows_is_refused_without_weights_and_can_be_taken_out(toy: Path, anatomy: Anatomy) -> None:
    (toy / "safety_checker").mkdir()
    (toy / "safety_checker" / "config.json").write_text("{}")
    (toy / "safety_checker" / "pytorch_model.bin").write_bytes(b"pickle")
    plain = json.loads((toy / "model_index.json").read_text())
    index = plain | {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"]}
    (toy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin") as caught:
        ModelFolder(toy, anatomy)
    assert caught.value.where == str(toy / "safety_checker")
    assert 'write "safety_checker": [null, null] in model_index.json' in caught.value.hint
    (toy / "model_index.json").write_text(json.dumps(plain))
    assert not [name for name in ModelFolder(toy, anatomy).files if name.startswith("safety_checker")]


def test_hidden_files_are_of_no_model(toy: Path, anatomy: Anatomy) -> None:
    plain = ModelFolder(toy, anatomy)
    for name in ("unet/._config.json", "unet/._diffusion_pytorch_model.safetensors", "unet/.x/model.safetensors"):
        (toy / name).parent.mkdir(exist_ok=True)
        (toy / name).write_bytes(b"\0\5\x16\7")
    hidden = ModelFolder(toy, anatomy)
    assert (hidden.files, hidden.ignored) == (plain.files, ())


def test_an_index_that_names_a_missing_shard_is_refused(toy: Path, anatomy: Anatomy) -> None:
    (toy / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "gone.safetensors"}})
    )
    with pytest.raises(ModelError, match=r"gone\.safetensors"):
        ModelFolder(toy, anatomy)


def test_quantised_components_are_refused(toy: Path, anatomy: Anatomy) -> None:
    (toy / "unet" / "config.json").write_text('{"quantization_config": {}}')
    with pytest.raises(ModelError, match="quantised"):
        ModelFolder(toy, anatomy)


def test_malformed_weights_are_refused_when_they_are_asked_for(toy: Path, anatomy: Anatomy) -> None:
    path = toy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match="malformed safetensors"):
        ModelFolder(toy, anatomy).tensors("unet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unet": ["my_code", "Net"]}, "custom code"),
        ({"../unet": ["diffusers", "Net"]}, "custom code"),
        ({"vae": ["diffusers", "AutoencoderKL"]}, "its folder is missing"),
        ({"safety_checker": ["stable_diffusion", "Checker"]}, r'write "safety_checker": \[null, null\]'),
    ],
)
def test_indexes_that_would_run_or_miss_something_are_refused(
    toy: Path, change: dict[str, object], message: str
) -> None:
    index = json.loads((toy / "model_index.json").read_text())
    (toy / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(ModelError, match=message):
        read_configs(toy)


@pytest.mark.parametrize(("content", "message"), [("[]", "must hold a JSON object"), ("{", "cannot be read as JSON")])
def test_a_broken_index_is_named(toy: Path, content: str, message: str) -> None:
    (toy / "model_index.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_configs(toy)


def test_what_is_no_model_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        read_configs(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"has no model_index.json\n  publisher works on diffusers folders"):
        read_configs(tmp_path)
