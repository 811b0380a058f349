"""Audits of other models, and of the parts of a pipeline of which a mask does not speak."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from publisher.auditing import audit
from publisher.safeguards.freeze_mask.audit.records import Audit
from support.auditing import (
    FROZEN,
    INDEX,
    UNET,
    Check,
    network,
    save,
    write_package,
    write_pipeline,
)
from support.masks import mask_of

# What cannot be compared


def test_another_architecture_is_not_comparable(tmp_path: Path, check: Check) -> None:
    found = check(save(tmp_path / "m.safetensors", {f"other.{i}": torch.ones(2, 2) for i in range(6)}))
    assert found.verdict == "not-comparable"
    assert found.weights[0].reason.startswith("has 0 of the 6 published names and shapes")


def test_another_model_of_the_same_architecture_is_not_comparable(tmp_path: Path, check: Check) -> None:
    found = check(save(tmp_path / "m.safetensors", network(seed=1)))
    assert (found.verdict, found.weights[0].comparable) == ("not-comparable", False)
    assert "another model" in found.weights[0].reason


def test_a_pipeline_without_the_denoiser_is_not_comparable(pipeline: Path, check: Check) -> None:
    shutil.rmtree(pipeline / "unet")
    assert check(pipeline).verdict == "not-comparable"


def test_a_decoy_beside_an_unknown_denoiser_does_not_comply_for_it(pipeline: Path, check: Check) -> None:
    save(pipeline / UNET, {"other.weight": torch.ones(3, 3)})
    save(pipeline / "decoy/model.safetensors", network())
    assert check(pipeline).verdict == "undecided"


def test_an_empty_folder_is_not_comparable(tmp_path: Path, check: Check) -> None:
    assert check(tmp_path).verdict == "not-comparable"


# Other parts


def test_exchanged_parts_are_information(pipeline: Path, check: Check) -> None:
    save(pipeline / "vae/diffusion_pytorch_model.safetensors", {"decoder.weight": torch.zeros(4, 4)})
    (pipeline / "unet/config.json").write_text('{"_class_name": "UNet2DConditionModel", "sample_size": 32}')
    (pipeline / "model_index.json").write_text(json.dumps(INDEX | {"extra": ["diffusers", "DDIMScheduler"]}))
    (pipeline / "extra").mkdir()
    (pipeline / "extra/scheduler_config.json").write_text("{}")
    found = check(pipeline)
    assert found.verdict == "complies"
    states = {one.name: (one.state, one.tensors_changed, one.files_changed) for one in found.components}
    assert states == {
        "model_index.json": ("changed", 0, ("model_index.json",)),
        "unet": ("changed", 0, ("unet/config.json",)),
        "vae": ("changed", 1, ()),
        "extra": ("added", 0, ()),
    }


def test_saving_anew_changes_nothing_and_casting_is_said(pipeline: Path, check: Check) -> None:
    save(pipeline / "vae/diffusion_pytorch_model.safetensors", {"decoder.weight": torch.ones(4, 4).half()})
    (pipeline / "model_index.json").write_text(json.dumps(INDEX | {"_diffusers_version": "0.99"}, indent=4))
    assert {one.name: one.state for one in check(pipeline).components} == {"vae": "cast"}


def test_a_part_that_is_not_there_is_said(pipeline: Path, check: Check) -> None:
    shutil.rmtree(pipeline / "vae")
    assert {one.name: one.state for one in check(pipeline).components} == {"vae": "missing"}


TEXT = {"embeddings.weight": (6, 4), "encoder.layers.0.q.weight": (4, 4), "final_layer_norm.weight": (4,)}
AUTOENCODER = {f"mid.attentions.0.{layer}.weight": (4, 4) for layer in ("to_q", "to_k", "to_v", "to_out.0")}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def older(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the same tensors as libraries of 2023 save them."""
    found = {}
    for name, tensor in tensors.items():
        layer = next((layer for layer in OLD if f".{layer}." in name), "")
        found[name.replace(f".{layer}.", f".{OLD[layer]}.") if layer else f"text_model.{name}"] = tensor
    return found


@pytest.fixture
def parts(signed: tuple[Path, Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """A package with a text encoder and an autoencoder, and its pipeline, to be changed."""
    random = torch.Generator().manual_seed(3)
    base = write_pipeline(tmp_path / "base", network())
    index = INDEX | {"text_encoder": ["transformers", "CLIPTextModel"]}
    (base / "model_index.json").write_text(json.dumps(index))
    for folder, shapes in (("text_encoder", TEXT), ("vae", AUTOENCODER)):
        tensors = {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
        shutil.rmtree(base / folder, ignore_errors=True)
        save(base / folder / "model.safetensors", tensors)
        (base / folder / "config.json").write_text("{}")
    mask = mask_of(network(), FROZEN)
    package = write_package(tmp_path / "package", base, signed[2], {"freeze-mask.json": mask.as_file()})
    return package, Path(shutil.copytree(base, tmp_path / "up"))


def states(found: Audit) -> dict[str, tuple[str, int, int]]:
    return {one.name: (one.state, one.tensors_changed, one.tensors_renamed) for one in found.components}


def test_older_names_of_a_text_encoder_and_an_autoencoder_are_renamed_and_not_changed(
    signed: tuple[Path, Path, Path], parts: tuple[Path, Path]
) -> None:
    package, up = parts
    old = {folder: older(load_file(up / folder / "model.safetensors")) for folder in ("text_encoder", "vae")}
    old["text_encoder"]["text_model.embeddings.position_ids"] = torch.arange(6)[None]
    for folder, tensors in old.items():
        save(up / folder / "model.safetensors", tensors)
    found = audit(up, package, signed[1])
    assert found.verdict == "complies"
    assert states(found) == {"text_encoder": ("renamed", 0, 3), "vae": ("renamed", 0, 4)}
    old["text_encoder"]["text_model.embeddings.position_ids"] = torch.arange(6)[None].flip(1)
    old["vae"]["mid.attentions.0.key.weight"] += 1
    for folder, tensors in old.items():
        save(up / folder / "model.safetensors", tensors)
    assert states(audit(up, package, signed[1])) == {"text_encoder": ("changed", 1, 3), "vae": ("changed", 1, 3)}


def test_a_part_whose_weights_cannot_be_read_is_not_called_changed(pipeline: Path, check: Check) -> None:
    (pipeline / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"no header")
    found = check(pipeline)
    assert (found.verdict, states(found)["vae"][0]) == ("undecided", "unexamined")
