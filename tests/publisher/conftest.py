"""A tiny signed package, and the embedded model's networks in a pipeline for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.package import keys, sign
from publisher.runtime.pipelines import twin
from support.packages import CREATED, build_unsigned, write_model


@pytest.fixture(scope="session")
def key_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("keys")
    keys.generate(folder / "a.key", folder / "a.pub", None)
    return folder / "a.key", folder / "a.pub"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory, model: dict[str, Path], key_pair: tuple[Path, Path]) -> Path:
    """A good package. Do not change it: use ``package``."""
    folder = tmp_path_factory.mktemp("good") / "tiny-1.2.0"
    build_unsigned(folder, model)
    sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
    return folder


@pytest.fixture
def package(signed: Path, tmp_path: Path) -> Path:
    """A copy of the good package, to be changed."""
    return Path(shutil.copytree(signed, tmp_path / "tiny-1.2.0"))


@pytest.fixture
def public(key_pair: tuple[Path, Path]) -> Path:
    return key_pair[1]


@pytest.fixture
def make(
    tmp_path: Path, model: dict[str, Path], key_pair: tuple[Path, Path]
) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Build and sign a package whose report was changed beforehand: what a careless or lying publisher would sign."""

    def build_and_sign(change: Callable[[dict[str, Any]], object]) -> Path:
        folder = tmp_path / "made"
        build_unsigned(folder, model, change)
        sign.sign(folder, keys.load_private(key_pair[0]), created=CREATED)
        return folder

    return build_and_sign


@pytest.fixture
def loaded(pipeline: Any) -> Iterator[Any]:
    """A twin of the embedded model's pipeline, whose networks the test must leave as they were."""
    other = twin(pipeline)
    weights = {name: weight.clone() for name, weight in other.unet.state_dict().items()}
    yield other
    after = pipeline.unet.state_dict()
    assert all(torch.equal(weight, after[name]) for name, weight in weights.items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in pipeline.unet.modules())
