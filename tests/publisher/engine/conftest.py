"""A toy model and a toy step."""

from __future__ import annotations

import json
from collections.abc import Callable
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
from support.toys import CONCEPT, KEY, ORIGIN, Add


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Add.runs = 0


@pytest.fixture
def base(tmp_path: Path) -> State:
    folder = tmp_path / "toy"
    (folder / "unet").mkdir(parents=True)
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "unet" / "config.json").write_text("{}")
    save_file({KEY: torch.eye(4), "bias": torch.zeros(4)}, folder / "unet" / "diffusion_pytorch_model.safetensors")
    anatomy = api.Anatomy("toy", "unet", (), 4)
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
