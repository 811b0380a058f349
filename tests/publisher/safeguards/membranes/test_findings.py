"""Membranes in a package: the index, the files beside it, and what their headers say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import safetensors_bytes
from publisher.package.verify import verify
from support.evaluating import codes, places, release_again

INDEX = "release/membranes/index.json"
FILE = "release/membranes/cigarette.safetensors"
STEM = "lora_unet_mid_block_attentions_0_proj_in"


def tensors(**changes: Any) -> dict[str, torch.Tensor]:
    found = {
        f"{STEM}.lora_down.weight": torch.ones(1, 4),
        f"{STEM}.lora_up.weight": torch.ones(2, 1),
        f"{STEM}.alpha": torch.tensor(1.0),
    }
    return {f"{STEM}.{name}" if name == "alpha" else name: value for name, value in {**found, **changes}.items()}


def add(package: Path, key: Path, data: bytes, change: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
    """Put a membrane and its index into a package and sign it, as its publisher could."""
    (package / FILE).parent.mkdir(exist_ok=True)
    (package / FILE).write_bytes(data)
    entry = {
        "concept": "cigarette",
        "file": Path(FILE).name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "words": ["cigarette"],
        "texts": ["a cigarette"],
        "rank": 1,
    }
    index = {"membranes": 1, "mode": "bundle", "entries": [entry]}
    change(index)
    (package / INDEX).write_text(json.dumps(index))
    release_again(package, key)


@pytest.mark.parametrize("mode", ["bundle", "merge"])
def test_good_membranes_verify(package: Path, key_pair: tuple[Path, Path], mode: str) -> None:
    add(package, key_pair[0], safetensors_bytes(tensors()), lambda index: index.update(mode=mode))
    assert verify(package, key_pair[1]).ok


def test_membranes_of_convolutions_verify(package: Path, key_pair: tuple[Path, Path]) -> None:
    conv = {
        f"{STEM}.lora_down.weight": torch.ones(1, 4, 1, 1),
        f"{STEM}.lora_up.weight": torch.ones(2, 1, 1, 1).half(),
        "alpha": torch.ones(1),
    }
    add(package, key_pair[0], safetensors_bytes(tensors(**conv)))
    assert verify(package, key_pair[1]).ok


def entry(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["entries"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda index: index.update(mode="sleep"), INDEX),
        (lambda index: index.update(code="import os"), INDEX),
        (lambda index: index.update(entries=[]), INDEX),
        (lambda index: index.update(membranes=2), INDEX),
        (entry(rank="1"), INDEX),
        (entry(file="../../model.safetensors"), INDEX),
        (entry(sha256="0" * 64), FILE),
        (entry(rank=2), FILE),
        (entry(file="other.safetensors"), INDEX),
        (lambda index: index["entries"].append(index["entries"][0] | {"file": "other.safetensors"}), INDEX),
        (lambda index: index["entries"].append(index["entries"][0] | {"concept": "pistol"}), INDEX),
    ],
    ids=[
        "mode",
        "further key",
        "empty",
        "version",
        "rank as text",
        "path",
        "digest",
        "rank",
        "no file",
        "concept twice",
        "file twice",
    ],
)
def test_an_index_that_does_not_fit_is_refused_even_if_signed(
    package: Path, key_pair: tuple[Path, Path], change: Callable[[dict[str, Any]], object], path: str
) -> None:
    add(package, key_pair[0], safetensors_bytes(tensors()), change)
    found = verify(package, key_pair[1])
    assert codes(found) == {"V023"}
    assert path in places(found, "V023")


def test_an_index_that_is_no_object_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    add(package, key_pair[0], safetensors_bytes(tensors()))
    (package / INDEX).write_text("[]")
    release_again(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V023") == {INDEX}


@pytest.mark.parametrize("name", ["more.safetensors", "deep/more.safetensors"])
def test_a_membrane_that_the_index_does_not_name_is_refused(
    package: Path, key_pair: tuple[Path, Path], name: str
) -> None:
    (package / FILE).parent.joinpath(name).parent.mkdir(parents=True)
    (package / FILE).with_name("x").parent.joinpath(name).write_bytes(safetensors_bytes(tensors()))
    add(package, key_pair[0], safetensors_bytes(tensors()))
    assert places(verify(package, key_pair[1]), "V023") == {f"release/membranes/{name}"}


def test_membranes_without_an_index_are_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    add(package, key_pair[0], safetensors_bytes(tensors()))
    (package / INDEX).unlink()
    release_again(package, key_pair[0])
    assert places(verify(package, key_pair[1]), "V023") == {FILE}


@pytest.mark.parametrize(
    "changes",
    [
        {"unet.weight": torch.ones(1)},
        {"lora_te_text_model.alpha": torch.ones(1)},
        {f"{STEM}.lora_down.weight": torch.ones(2, 4)},
        {f"{STEM}.lora_down.weight": torch.ones(1, 4, 3, 3), f"{STEM}.lora_up.weight": torch.ones(2, 1, 3, 3)},
        {f"{STEM}.lora_down.weight": torch.ones(1, 4, 1, 1)},
        {f"{STEM}.lora_up.weight": torch.ones(2, 1).to(torch.uint8)},
        {f"{STEM}.lora_down.weight": torch.ones(1, 0)},
        {"alpha": torch.ones(2)},
    ],
    ids=["name", "text encoder", "rank", "3x3", "half a convolution", "dtype", "nothing", "alpha"],
)
def test_a_file_that_is_no_membrane_is_refused(
    package: Path, key_pair: tuple[Path, Path], changes: dict[str, torch.Tensor]
) -> None:
    add(package, key_pair[0], safetensors_bytes(tensors(**changes)))
    assert places(verify(package, key_pair[1]), "V020") == {FILE}


def test_a_membrane_without_one_of_its_factors_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    half = {name: tensor for name, tensor in tensors().items() if "up" not in name}
    add(package, key_pair[0], safetensors_bytes(half))
    assert places(verify(package, key_pair[1]), "V020") == {FILE}


def test_a_truncated_membrane_is_refused(package: Path, key_pair: tuple[Path, Path]) -> None:
    add(package, key_pair[0], safetensors_bytes(tensors())[:-1])
    assert codes(verify(package, key_pair[1])) == {"V020"}
