from __future__ import annotations

from pathlib import Path

import pytest
import torch

from publisher.api import Model
from publisher.api.diffusion.checkpoints import Checkpoints
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.slices import LayerUpdate, recompose
from publisher.runtime.pipelines import load
from publisher.slicing.recipe import StageRecipe
from publisher.slicing.stages import layers_of
from publisher.slicing.training import BatchPart, StageJob, train_stage
from publisher.testing import open_model, save_tiny_model

KEPT = ("a dog", "a tree", "a house")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(save_tiny_model(tmp_path_factory.mktemp("base") / "tiny"))


def latents(model: Model, count: int, seed: int) -> torch.Tensor:
    found = model.anatomy.latents
    return torch.randn(count, found.channels, *found.size, generator=torch.Generator().manual_seed(seed))


def trained(model: Model, folder: Path, weight: float) -> dict[str, LayerUpdate]:
    job = StageJob(
        id="artist-a",
        model=model,
        device="cpu",
        before={},
        layers=tuple(layers_of(model, convolutions=True)),
        learned=(BatchPart(latents(model, 3, 0), ("a cigarette",) * 3, 3),),
        replay=BatchPart(latents(model, 3, 1), KEPT, 3),
        weight=weight,
        recipe=StageRecipe(rank=2, steps=10, lr=0.01, batch=6),
    )
    return train_stage(job, Checkpoints(folder, "artist-a", "0" * 64), lambda *_: None)


def moved(model: Model, updates: dict[str, LayerUpdate], prompt: str) -> float:
    """Return how far a stage moves what the model says, root mean square."""
    pipeline = load(model.folder, model.anatomy, torch.device("cpu"), torch.float32)
    denoiser = Denoiser.of(pipeline)
    x, t = latents(model, 8, 2), torch.arange(8) * 100
    text = model.anatomy.read_text(pipeline, [prompt] * 8)
    before = denoiser.frozen(x, t, text)
    with torch.no_grad():
        for layer, update in updates.items():
            weight = denoiser.network.get_parameter(f"{layer}.weight")
            weight.copy_(recompose(weight, [update]))
    return float((denoiser.frozen(x, t, text) - before).square().mean().sqrt())


def test_replay_holds_what_the_model_says_of_other_prompts(model: Model, tmp_path: Path) -> None:
    free, held = trained(model, tmp_path / "free", 1e-6), trained(model, tmp_path / "held", 1e3)
    assert moved(model, held, KEPT[0]) < 0.5 * moved(model, free, KEPT[0])
    assert moved(model, held, "a cigarette") > 0
