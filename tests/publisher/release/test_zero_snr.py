"""A model with v prediction and zero terminal SNR, in float32 and float16, through every step that we ship."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.engine.run import harden
from publisher.model.state import State
from publisher.release.prepare import prepare
from publisher_emoji import model_folder

PHASES = ("reference images", "images encoded", "texts encoded")
QUICK = {"images": 2, "keep_images": 1}
STEPS = [
    {"use": "erase", "with": {"targets": {"cigarette": "pizza"}}},
    {
        "use": "immunize",
        "with": {
            "method": "imma",
            "inner": "lora",
            "steps": 2,
            "captions": ["name"],
            "keep_concepts": 2,
            "batch": 2,
            "attacks": [],
            "prior": 0,
            **QUICK,
        },
    },
    {
        "use": "freeze-mask",
        "with": {
            "innocents": 1,
            "ratio": 0.3,
            "adapt": {"lr": 1e-4, "steps": 2},
            "score": {"points": 1, "batches": 1},
            "replicas": 0,
            "promise": "stated",
            **QUICK,
        },
    },
    {
        "use": "membrane-bundle",
        "with": {
            "train_on": "prompts",
            "surrogates": {"cigarette": "pizza"},
            "steps": 4,
            "warmup": 1,
            "cycles": 1,
            "lr": 1e-3,
            "lam": 30,
            "pool": 2,
            "denoising_steps": 6,
        },
    },
]


class Heard:
    """Keeps the lines of progress."""

    def __init__(self) -> None:
        self.lines: set[tuple[str, str]] = set()

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        assert 0 <= done <= total or total == 0
        self.lines.add((stage, text))

    def say(self, text: str) -> None:
        """Return nothing to keep."""

    warn = say


def base(folder: Path, dtype: torch.dtype) -> None:
    shutil.copytree(model_folder(), folder)
    path = folder / "scheduler/scheduler_config.json"
    known = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    path.write_text(json.dumps(json.loads(path.read_text()) | known))
    (file,) = (folder / "unet").glob("*.safetensors")
    save_file({name: value.to(dtype) for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_every_step_works_at_zero_terminal_snr(
    manifest: Callable[..., Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    base(tmp_path / "model", dtype)
    prepared = prepare(
        manifest(model="./model", steps=STEPS, evaluate={"scorer": "emoji", "sampling": {"steps": 4}}),
        tmp_path / "work",
        fetch=False,
    )
    assert prepared.model is not None
    heard = Heard()
    hardened = harden(
        State(prepared.model.folder, (), tmp_path / "states"), prepared.steps, tmp_path / "work", heard, lambda *_: None
    )
    losses = [curve for result in hardened.results for curve in result.record.curves]
    assert losses
    assert all(math.isfinite(value) for curve in losses for value in curve.y)
    assert [sorted(result.artifacts) for result in hardened.results][2:] == [
        ["freeze-mask.json"],
        ["membranes/cigarette.safetensors", "membranes/index.json"],
    ]
    assert {
        *((step, text) for step in ("immunize", "freeze-mask") for text in PHASES),
        ("erase", "prompts embedded"),
        ("membrane-bundle", "texts encoded"),
    } <= heard.lines
    assert any(text.startswith("trajectories brought to their places, 0 of") for _, text in heard.lines)
