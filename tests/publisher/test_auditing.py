"""Audits of what somebody may make of a package: from honest fine-tuning to hostile files."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.auditing import Auditor, NoMaskError, audit
from publisher.errors import UsageError
from publisher.loading import NotVerifiedError
from publisher.package import keys
from publisher.safeguards.freeze_mask.audit.records import Audit
from support.auditing import (
    CONV,
    FROZEN,
    INDEX,
    NORM,
    TO_K,
    TO_V,
    UNET,
    lora,
    merged,
    network,
    save,
    write_masked,
    write_package,
    write_pipeline,
)
from support.masks import mask_of

K, V, C, N = (f"{layer}.weight" for layer in (TO_K, TO_V, CONV, NORM))
Check = Callable[[Path], Audit]


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A package with a mask, the public key and the private one."""
    folder = tmp_path_factory.mktemp("audit")
    keys.generate(folder / "a.key", folder / "a.pub", None)
    return write_masked(folder / "package", folder / "a.key", network(), FROZEN), folder / "a.pub", folder / "a.key"


@pytest.fixture
def check(signed: tuple[Path, Path, Path]) -> Check:
    return lambda upload: audit(upload, signed[0], signed[1])


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The published pipeline, to be changed."""
    return write_pipeline(tmp_path / "upload", network())


def trained(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """A fine-tuning that kept the mask: free tensors, and free rows of the frozen one, moved."""
    tensors = network()
    tensors[V] += 0.01 * torch.randn(48, 64, generator=torch.Generator().manual_seed(9))
    tensors[C][20:30] *= 1.1
    return {**tensors, **changes}


def statuses(found: Audit) -> dict[str, str]:
    (weights,) = found.weights
    return {one.name: one.status for one in weights.frozen}


def reasons(found: Audit) -> dict[str, str]:
    return {one.path: one.reason for one in found.unexamined}


# What complies


@pytest.mark.parametrize("kind", ["pipeline", "unet folder", "file"])
def test_free_tensors_and_free_rows_may_change(tmp_path: Path, check: Check, kind: str) -> None:
    root = write_pipeline(tmp_path / "upload", trained())
    found = check({"pipeline": root, "unet folder": root / "unet", "file": root / UNET}[kind])
    assert found.verdict == "complies"
    assert set(statuses(found).values()) == {"equal"}
    assert (found.weights[0].free.tensors, found.weights[0].free.changed) == (3, 1)
    assert found.upload == {"pipeline": "pipeline", "unet folder": "folder", "file": "file"}[kind]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("back", [False, True], ids=["narrow", "cast back"])
def test_a_cast_of_the_published_tensors_is_equal_after_a_cast(
    tmp_path: Path, check: Check, dtype: torch.dtype, *, back: bool
) -> None:
    cast = {name: tensor.to(dtype) for name, tensor in trained().items()}
    found = check(save(tmp_path / "m.safetensors", {name: t.float() if back else t for name, t in cast.items()}))
    assert found.verdict == "complies"
    expected = "equal" if back and dtype == torch.float64 else "cast"
    assert set(statuses(found).values()) == {expected}
    name = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}[dtype]
    assert {one.cast for one in found.weights[0].frozen} == {name if expected == "cast" else ""}
    assert found.weights[0].dtypes == {f"F32 as {'F32' if back else name}": 6}


def test_shards_with_an_index_are_one_set(tmp_path: Path, check: Check) -> None:
    tensors = trained()
    names = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    parts = [dict(list(tensors.items())[:3]), dict(list(tensors.items())[3:])]
    for name, part in zip(names, parts, strict=True):
        save(tmp_path / "unet" / name, part)
    index = {"weight_map": {key: name for name, part in zip(names, parts, strict=True) for key in part}}
    (tmp_path / "unet/model.safetensors.index.json").write_text(json.dumps(index))
    found = check(tmp_path / "unet")
    assert found.verdict == "complies"
    assert found.weights[0].files == tuple(names)


LAYOUTS = {
    "plain": ("m-{:05d}-of-00002.safetensors", "m.safetensors.index.json"),
    "variant": ("m.fp16-{:05d}-of-00002.safetensors", "m.safetensors.index.fp16.json"),
    "older variant": ("m-{:05d}-of-00002.fp16.safetensors", "m.safetensors.index.fp16.json"),
    "no digits that anybody knows": ("part{}.safetensors", "m.safetensors.index.json"),
}


def write_shards(folder: Path, layout: str, tensors: Mapping[str, torch.Tensor], *, index: bool = True) -> list[Path]:
    """Two halves of a network in a folder."""
    pattern, index_name = LAYOUTS[layout]
    names = [pattern.format(number) for number in (1, 2)]
    parts = [dict(list(tensors.items())[:3]), dict(list(tensors.items())[3:])]
    if index:
        listed = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / index_name).write_text(json.dumps({"weight_map": listed}))
    return [save(folder / name, part) for name, part in zip(names, parts, strict=True)]


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_shards_of_every_spelling_are_one_set(pipeline: Path, check: Check, layout: str, *, index: bool) -> None:
    (pipeline / UNET).unlink()
    shards = write_shards(pipeline / "unet", layout, trained(), index=index)
    found = check(pipeline)
    if layout in list(LAYOUTS)[:3] or index:
        assert found.verdict == "complies"
        assert found.weights[0].files == tuple(path.relative_to(pipeline).as_posix() for path in shards)
    else:
        assert found.verdict == "undecided"  # nobody says that they are one set; nothing is missing either
        assert {one.status for weights in found.weights for one in weights.frozen} == {"equal"}


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("layout", list(LAYOUTS)[:3])
def test_a_set_that_is_incomplete_as_given_is_undecided_and_nothing_of_it_is_missing(
    pipeline: Path, check: Check, layout: str, *, index: bool
) -> None:
    (pipeline / UNET).unlink()
    first, second = write_shards(pipeline / "unet", layout, trained(), index=index)
    second.unlink()
    for upload in (pipeline, first):
        found = check(upload)
        assert found.verdict == "undecided"
        assert found.weights[0].violations == ()
        assert "is a part of a set that is not complete" in reasons(found)[found.weights[0].files[0]]
    save(first, merged(dict(list(trained().items())[:3]), (K,), 2))
    assert check(pipeline).verdict == "does-not-comply"


def test_shards_of_a_text_encoder_or_vae_are_one_set(signed: tuple[Path, Path, Path], pipeline: Path) -> None:
    tensors = {f"decoder.{i}.weight": torch.randn(4, 4) for i in range(6)}
    base = write_pipeline(pipeline.parent / "base", network())
    save(base / "vae/diffusion_pytorch_model.safetensors", tensors)
    package = write_package(
        pipeline.parent / "package", base, signed[2], {"freeze-mask.json": mask_of(network(), FROZEN).as_file()}
    )
    (pipeline / "vae/diffusion_pytorch_model.safetensors").unlink()
    _, second = write_shards(
        pipeline / "vae", "older variant", {name: tensor.half() for name, tensor in tensors.items()}
    )
    assert {one.name: one.state for one in audit(pipeline, package, signed[1]).components} == {"vae": "cast"}
    second.unlink()
    found = audit(pipeline, package, signed[1])
    assert (found.verdict, {one.name: one.tensors_changed for one in found.components}) == ("undecided", {"vae": 0})


def test_names_of_wrappers_do_not_matter(tmp_path: Path, check: Check) -> None:
    wrapped = {f"_orig_mod.{name}": tensor for name, tensor in trained().items()}
    assert check(save(tmp_path / "m.safetensors", wrapped)).verdict == "complies"


def test_the_package_itself_complies(signed: tuple[Path, Path, Path], check: Check) -> None:
    found = check(signed[0])
    assert found.verdict == "complies"
    assert {one.state for one in found.components} == {"same"}


# What does not


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_lora_merged_into_a_frozen_tensor_is_named_with_its_rank(
    tmp_path: Path, check: Check, dtype: torch.dtype
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in merged(network(), (K, C), 4).items()}
    found = check(save(tmp_path / "m.safetensors", tensors))
    assert found.verdict == "does-not-comply"
    changes = {one.name: one.change for one in found.weights[0].violations}
    assert set(changes) == {K, C}
    assert all(change is not None and change.low_rank and change.rank == 4 for change in changes.values())


def test_training_a_frozen_tensor_is_no_lora(tmp_path: Path, check: Check) -> None:
    weight = network()[K].requires_grad_()
    optimizer = torch.optim.AdamW([weight], lr=1e-3, foreach=False)
    random = torch.Generator().manual_seed(5)
    for _ in range(20):
        x, y = (torch.randn(8, n, generator=random) for n in (64, 48))
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(x @ weight.T, y).backward()
        optimizer.step()
    (violation,) = check(save(tmp_path / "m.safetensors", trained(**{K: weight.detach()}))).weights[0].violations
    assert violation.change is not None
    assert violation.change.relative is not None
    assert 0.01 < violation.change.relative < 1
    assert not violation.change.low_rank


def test_one_changed_bit_is_a_change(tmp_path: Path, check: Check) -> None:
    tensors = trained()
    tensors[N].view(torch.int32)[3] ^= 1
    assert statuses(check(save(tmp_path / "m.safetensors", tensors)))[N] == "changed"


def test_a_frozen_row_that_changed_is_a_change(tmp_path: Path, check: Check) -> None:
    tensors = trained()
    tensors[C][39] *= 1.01
    (violation,) = check(save(tmp_path / "m.safetensors", tensors)).weights[0].violations
    assert (violation.name, violation.rows, violation.status) == (C, ((0, 16), (32, 40)), "changed")


def test_a_missing_tensor_is_said(tmp_path: Path, check: Check) -> None:
    tensors = trained()
    del tensors[K]
    found = check(save(tmp_path / "m.safetensors", tensors))
    assert (found.verdict, statuses(found)[K]) == ("does-not-comply", "missing")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_renamed_tensor_is_found_by_its_bytes(tmp_path: Path, check: Check, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in trained().items()}
    tensors["elsewhere.weight"] = tensors.pop(K)
    found = check(save(tmp_path / "m.safetensors", tensors))
    (violation,) = found.weights[0].violations
    assert (violation.status, violation.found_as) == ("renamed", "elsewhere.weight")
    assert found.weights[0].unexpected == ("elsewhere.weight",)


def test_exchanged_tensors_are_found_by_their_bytes(tmp_path: Path, check: Check) -> None:
    tensors = network()
    (violation,) = (
        check(save(tmp_path / "m.safetensors", {**tensors, K: tensors[V], V: tensors[K]})).weights[0].violations
    )
    assert (violation.status, violation.found_as) == ("renamed", V)


def test_another_shape_is_a_change_with_its_reason(tmp_path: Path, check: Check) -> None:
    found = check(save(tmp_path / "m.safetensors", trained(**{K: torch.ones(4, 4)})))
    (violation,) = found.weights[0].violations
    assert (violation.status, violation.change) == ("changed", None)
    assert violation.reason == "has the shape [4, 4], published [48, 64]"


def test_a_quantised_tensor_is_a_change(tmp_path: Path, check: Check) -> None:
    quantised = (network()[K] * 100).to(torch.int8)
    (violation,) = check(save(tmp_path / "m.safetensors", trained(**{K: quantised}))).weights[0].violations
    assert violation.reason == "is stored as I8, which is no cast that a mask knows"


def test_nan_in_a_frozen_tensor_is_a_change(tmp_path: Path, check: Check) -> None:
    tensors = trained()
    tensors[K][0, 0] = torch.nan
    (violation,) = check(save(tmp_path / "m.safetensors", tensors)).weights[0].violations
    assert violation.reason == "holds NaN or infinity"


def test_every_variant_is_looked_at(pipeline: Path, check: Check) -> None:
    save(pipeline / "unet/diffusion_pytorch_model.fp16.safetensors", merged(network(), (K,), 2))
    found = check(pipeline)
    assert found.verdict == "does-not-comply"
    assert [len(one.violations) for one in found.weights] == [1, 0]


# Adapters


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
    """The same tensors as libraries of 2023 save them."""
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


# What training leaves behind


def leave_logs(folder: Path) -> None:
    """Write what the example scripts, accelerate, TensorBoard and a model hub put into an output folder."""
    event = b"\x09" + bytes(8) + b"\x10\x01"
    record = struct.pack("<QI", len(event), 7) + event + bytes(4)
    files = {
        "logs/run/events.out.tfevents.1764280000.host.4242.0": record * 3 + record[:9],
        "logs/run/hparams.yml": b"lr: 1e-4\n",
        "run.log": b"\x1b[32m 10%\x1b[0m\r 20%\n",
        "README.md": "Ünï".encode(),
        "LICENSE": "§ 1".encode("latin-1"),
        "notes.txt": "log".encode("utf-16"),
        "image_0.png": b"\x89PNG\r\n\x1a\n\0",
        "photo.JPG": b"\xff\xd8\xff\xe0\0",
        "clip.mp4": b"\0\0\0\x20ftypisom\0",
        "data.parquet": b"PAR1\x15\x04\0PAR1",
        ".gitattributes": b"*.safetensors filter=lfs\n",
        ".DS_Store": b"\0\0\0\1Bud1\0",
        "spiece.model": b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\2\x12\2\x18\1",
        ".cache/huggingface/download/a.metadata": b"0\n",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / "latest.log").symlink_to("run.log")


def leave_checkpoint(folder: Path) -> Path:
    """Write what accelerate saves of an optimizer, a schedule and generators."""
    layer = torch.nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(3)).sum().backward()
    optimizer.step()
    folder.mkdir(parents=True)
    torch.save(optimizer.state_dict(), folder / "optimizer.bin")
    torch.save({"base_lrs": [0.1], "last_epoch": 3}, folder / "scheduler.bin")
    torch.save({"random_state": random.getstate(), "torch": torch.get_rng_state()}, folder / "random_states_0.pkl")
    return folder


def test_the_output_folder_of_a_training_is_decided(pipeline: Path, check: Check) -> None:
    leave_logs(pipeline)
    state = leave_checkpoint(pipeline / "checkpoint-500")
    save(state / "unet/diffusion_pytorch_model.safetensors", trained())
    save(state / "vae/diffusion_pytorch_model.safetensors", {"decoder.weight": torch.ones(4, 4)})
    found = check(pipeline)
    assert reasons(found) == {}
    assert found.verdict == "complies"
    assert [weights.files[0] for weights in found.weights] == [f"checkpoint-500/{UNET}", UNET]
    names = ("optimizer.bin", "random_states_0.pkl", "scheduler.bin")
    assert [one.path for one in found.aside] == [f"checkpoint-500/{name}" for name in names]
    save(state / "unet/diffusion_pytorch_model.safetensors", merged(network(), (K,), 2))
    assert check(pipeline).verdict == "does-not-comply"


def test_weights_under_the_name_of_an_optimizer_are_not_left_aside(pipeline: Path, check: Check) -> None:
    state = leave_checkpoint(pipeline / "checkpoint-500")
    torch.save(network(), state / "optimizer.bin")
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == ("undecided", ["checkpoint-500/optimizer.bin"])


def test_the_store_of_git_is_left_aside_and_a_folder_of_that_name_is_not(pipeline: Path, check: Check) -> None:
    (pipeline / ".git/objects").mkdir(parents=True)
    (pipeline / ".git/objects/pack").write_bytes(b"PACK\0\0")
    assert list(reasons(check(pipeline))) == [".git/objects/pack"]
    (pipeline / ".git/HEAD").write_text("ref: refs/heads/main\n")
    found = check(pipeline)
    assert (found.verdict, [one.path for one in found.aside]) == ("complies", [".git/"])


# What may hold weights


@pytest.mark.parametrize("name", ["weights", ".hidden", "unet/.cache/x.txt", "tokenizer.model", "x.gguf"])
def test_what_was_not_looked_at_is_named_and_then_it_is_undecided(pipeline: Path, check: Check, name: str) -> None:
    (pipeline / name).parent.mkdir(exist_ok=True)
    (pipeline / name).write_bytes(b"GGUF\3\0\0\0" if name == "x.gguf" else pickle.dumps(1))
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == ("undecided", [name])


def test_weights_without_a_suffix_are_compared(pipeline: Path, check: Check) -> None:
    save(pipeline / "unet/.backup", merged(network(), (K,), 2))
    found = check(pipeline)
    assert (found.verdict, found.weights[0].files) == ("does-not-comply", ("unet/.backup",))


def test_a_pointer_of_git_lfs_is_told_from_a_file(pipeline: Path, check: Check) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for name in ("unet/model.bin", "image.png"):
        (pipeline / name).write_text(pointer)
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == ("undecided", ["unet/model.bin"])
    assert "Git LFS pointer in place of the file: run 'git lfs pull'" in reasons(found)["unet/model.bin"]


# Hostile files


class Exploit:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "unet/x.safetensors", "learned_embeds.pt"])
def test_a_pickle_is_never_opened_and_never_waved_through(
    pipeline: Path, tmp_path: Path, check: Check, name: str
) -> None:
    (pipeline / name).write_bytes(pickle.dumps(Exploit(tmp_path / "witness")))
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert name in reasons(found)
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<Q", 1 << 40) + b"{}",
        struct.pack("<Q", 2) + b"{}" + b"x",
        struct.pack("<Q", 60) + b'{"../x":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}   ',
    ],
    ids=["empty", "header bomb", "extended", "path in a name"],
)
def test_a_malformed_file_is_refused(pipeline: Path, check: Check, data: bytes) -> None:
    (pipeline / UNET).write_bytes(data)
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert "no well-formed safetensors file" in reasons(found)[UNET]


def test_a_violation_is_one_whatever_else_cannot_be_examined(pipeline: Path, check: Check) -> None:
    save(pipeline / UNET, merged(network(), (K,), 2))
    (pipeline / "unet/more.bin").write_bytes(b"x")
    assert check(pipeline).verdict == "does-not-comply"


def test_links_are_not_followed(pipeline: Path, tmp_path: Path, check: Check) -> None:
    secret = save(tmp_path / "secret.safetensors", network())
    (pipeline / UNET).unlink()
    (pipeline / UNET).symlink_to(secret)
    assert UNET in reasons(check(pipeline))
    link = tmp_path / "link.safetensors"
    link.symlink_to(secret)
    with pytest.raises(UsageError, match="is a link"):
        check(link)


def test_an_index_that_leads_outside_is_refused(pipeline: Path, check: Check) -> None:
    index = {"weight_map": {K: "../../outside.safetensors"}}
    (pipeline / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    found = check(pipeline)
    assert (found.verdict, list(reasons(found))) == (
        "undecided",
        ["unet/diffusion_pytorch_model.safetensors.index.json"],
    )


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("unet/config.json", '{"auto_map": {"AutoModel": "evil.Model"}}', "loads code"),
        ("model_index.json", '{"_class_name": "P", "unet": ["evil", "UNet"]}', "no class of diffusers"),
        ("pipeline.py", "import os", "program code"),
        ("vae/config.json", '{"a": 1, "a": 2}', "key twice"),
    ],
    ids=["auto_map", "foreign class", "script", "duplicate key"],
)
def test_code_is_neither_run_nor_waved_through(pipeline: Path, check: Check, name: str, text: str, reason: str) -> None:
    (pipeline / name).write_text(text)
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert reason in reasons(found)[name]


def test_nan_in_a_free_tensor_is_refused(tmp_path: Path, check: Check) -> None:
    found = check(save(tmp_path / "m.safetensors", trained(**{f"{TO_V}.bias": torch.full((48,), torch.nan)})))
    assert found.verdict == "undecided"
    assert "NaN" in reasons(found)["m.safetensors"]


def test_a_tensor_in_two_shards_or_under_two_names_is_refused(tmp_path: Path, check: Check) -> None:
    save(tmp_path / "two/model-00001-of-00002.safetensors", network())
    save(tmp_path / "two/model-00002-of-00002.safetensors", {K: network()[K] + 1})
    assert check(tmp_path / "two").unexamined
    save(tmp_path / "names/m.safetensors", {**network(), f"unet.{K}": network()[K] + 1})
    assert "two tensors that stand for" in reasons(check(tmp_path / "names"))["m.safetensors"]


def test_a_file_that_changes_meanwhile_is_noticed(
    pipeline: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Auditor.run

    def swap(auditor: Auditor) -> None:
        run(auditor)
        save_file(merged(network(), (K,), 2), pipeline / UNET)

    monkeypatch.setattr(Auditor, "run", swap)
    found = check(pipeline)
    assert found.verdict == "undecided"
    assert UNET in reasons(found)


# The package


def test_a_package_that_does_not_verify_is_refused(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    package = Path(shutil.copytree(signed[0], tmp_path / "package"))
    (package / "LICENSE").write_text("changed")
    with pytest.raises(NotVerifiedError, match="V012"):
        audit(package, package, signed[1])


def test_a_package_without_a_mask_has_nothing_to_compare(signed: tuple[Path, Path, Path], tmp_path: Path) -> None:
    package = write_package(tmp_path / "package", write_pipeline(tmp_path / "base", network()), signed[2], {})
    with pytest.raises(NoMaskError):
        audit(package, package, signed[1])


def test_digests_of_casts_that_are_not_of_the_tensors_are_refused(
    signed: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, *rest = mask_of(network(), FROZEN).frozen
    wrong = first.model_copy(update={"sha256": {**first.sha256, "BF16": "0" * 64}})
    package = write_masked(tmp_path / "package", signed[2], network(), FROZEN, frozen=(wrong, *rest))
    with pytest.raises(NotVerifiedError, match="a digest of"):
        audit(package, package, signed[1])


def test_equal_uploads_give_equal_records(tmp_path: Path, check: Check) -> None:
    path = save(tmp_path / "m.safetensors", merged(network(), (K, C), 4))
    assert check(path).as_json() == check(path).as_json()
    assert Audit.parse(check(path).as_json()) == check(path)


def test_lora_of_the_helper_has_its_rank() -> None:
    assert int(torch.linalg.matrix_rank(lora((48, 64), 4))) == 4
