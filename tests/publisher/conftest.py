"""A tiny signed package, a toy model and a toy step, and the embedded model's networks in a pipeline for each test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from publisher import api
from publisher.engine.cache import Identity
from publisher.engine.device import Device
from publisher.engine.plan import PlannedStep
from publisher.model.folder import ModelFolder
from publisher.model.state import State
from publisher.package import keys, sign
from publisher.runtime.pipelines import twin
from support.packages import CREATED, build_unsigned, write_model
from support.toys import CONCEPT, KEY, ORIGIN, Add


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


@pytest.fixture
def base(tmp_path: Path) -> State:
    folder = tmp_path / "toy"
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text("{}")
    save_file({KEY: torch.eye(4), "bias": torch.zeros(4)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    anatomy = api.Anatomy("toy", "unet", (), 4, api.Latents(4, 4, 4, 1))
    return State(ModelFolder(folder, anatomy), (), tmp_path / "work" / "states")


@pytest.fixture
def planned() -> Callable[..., PlannedStep]:
    """Make a planned step of a step class."""

    def make(cls: type[api.Step[Any]] = Add, id: str = "add", seed: int = 0, **params: Any) -> PlannedStep:  # noqa: A002
        values = cls.Params.parse(params)
        identity = Identity(
            name=cls.name,
            version=cls.version,
            origin=ORIGIN,
            id=id,
            params=values.as_json(),
            scope=api.Scope(concepts=(CONCEPT,)),
            seed=seed,
            device=Device("cpu", "float32"),
            versions={"torch": "2"},
        )
        return PlannedStep(identity, cls(), values, (), None)  # type: ignore[arg-type]

    return make
