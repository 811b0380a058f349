"""The half-precision variant of a package: written beside the weights, and compared with them when verified."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api.header import read_header
from publisher.errors import ModelError
from publisher.package.layout import is_judged
from publisher.package.variants import differences, variant_name, write_fp16

ONE, TWO = "unet/diffusion_pytorch_model-00001-of-00002.safetensors", "text_encoder/model.safetensors"
INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Weights of two parts, one of them in shards."""
    shard = ONE.replace("00001-of", "00002-of")
    for path, name in ((ONE, "a.weight"), (shard, "b.weight"), (TWO, "c.weight")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        save_file({name: torch.randn(3, 5), f"{name}.ids": torch.arange(4)}, tmp_path / path, {"format": "pt"})
    named = {"a.weight": ONE, "a.weight.ids": ONE, "b.weight": shard, "b.weight.ids": shard}
    index = {"metadata": {"total_size": 184}, "weight_map": {name: Path(path).name for name, path in named.items()}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


def paths(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def wrong(folder: Path) -> dict[str, str]:
    weights = {path: read_header(folder / path) for path in paths(folder) if path.endswith(".safetensors")}
    return dict(differences(folder, weights, [path for path in paths(folder) if path.endswith(".json")]))


def test_a_variant_has_the_names_of_the_loaders_and_the_rounded_numbers(package: Path) -> None:
    before = paths(package)
    written = write_fp16(package, before)
    assert sorted(written) == [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "unet/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ]
    assert [is_judged(path) for path in written] == [False] * 4
    assert all(map(is_judged, before))
    full, half = load_file(package / TWO), load_file(package / variant_name(TWO))
    assert half["c.weight"].equal(full["c.weight"].half())
    assert half["c.weight.ids"].equal(full["c.weight.ids"])
    index = json.loads((package / variant_name(INDEX)).read_text())
    assert index["weight_map"]["b.weight"] == "diffusion_pytorch_model.fp16-00002-of-00002.safetensors"
    assert wrong(package) == {}
    assert write_fp16(package, paths(package)) == sorted(written)  # a variant has no variant


def test_a_variant_with_other_numbers_names_or_without_its_weights_is_found(package: Path) -> None:
    write_fp16(package, paths(package))
    path = package / variant_name(TWO)
    tensors = load_file(path)
    tensors["c.weight"][0, 0] += 1
    save_file(tensors, path, {"format": "pt"})
    assert wrong(package)[variant_name(TWO)].startswith("its tensor c.weight is not that of text_encoder/model")
    save_file({"c.weight": tensors["c.weight"]}, path, {"format": "pt"})
    assert wrong(package)[variant_name(TWO)] == f"has not the tensors of {TWO}"
    (package / TWO).unlink()
    assert wrong(package)[variant_name(TWO)] == "is a variant of weights that are not there"
    text = (package / variant_name(INDEX)).read_text()
    (package / variant_name(INDEX)).write_text(text.replace("00002-of-00002", "00001-of-00002"))
    assert "is not the index" in wrong(package)[variant_name(INDEX)]


def test_a_number_beyond_half_precision_is_refused_by_its_tensors_name(package: Path) -> None:
    save_file({"c.weight": torch.tensor([1.0, 7e4])}, package / TWO, {"format": "pt"})
    with pytest.raises(ModelError, match=r"c\.weight has values beyond 65504"):
        write_fp16(package, paths(package))
