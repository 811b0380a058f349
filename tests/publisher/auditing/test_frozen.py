"""Audits of what is frozen: what complies with a mask, and what does not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from publisher.auditing import audit
from support.auditing import (
    FROZEN,
    UNET,
    C,
    Check,
    K,
    N,
    V,
    merged,
    network,
    reasons,
    save,
    statuses,
    trained,
    write_package,
    write_pipeline,
)
from support.masks import mask_of

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
    """Return two halves of a network in a folder."""
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
