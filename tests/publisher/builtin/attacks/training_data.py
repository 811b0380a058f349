"""A concept, a training data about it, and what a pipeline consists of."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from publisher.api import Concept, TrainingAttack, TrainingData
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.builtin.attacks.training import TRAINING
from publisher.runtime.pipelines import load
from support.anatomies import anatomy_of

ATTACKS = {attack.name: attack for attack in TRAINING}
CAT = Concept(
    id="cat",
    name="cat",
    label="cat",
    prompts=("a cat emoji", "a cat emoji in noto style"),
    synonyms=("tom",),
    paraphrases=("a tom emoji", "a tom emoji in noto style"),
    description="a small animal with whiskers",
)


def fresh(folder: Path) -> Any:
    return copy.deepcopy(_loaded(folder))


@cache
def _loaded(folder: Path) -> Any:
    return load(folder, anatomy_of(folder), torch.device("cpu"), torch.float32)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def data(attack: TrainingAttack[Any], params: Any, **other: Any) -> TrainingData:
    """Return two images of the concept and three of its class, all of noise."""
    captions, own = attack.captions(params, CAT), seeded(7)
    plain: dict[str, Any] = {
        "latents": torch.randn(2, 4, 8, 8, generator=own),
        "captions": (captions * 2)[:2],
        "prior_latents": torch.randn(3, 4, 8, 8, generator=own),
        "prior_captions": ("a dog emoji",) * 3,
        "concept": CAT,
    }
    return TrainingData(**{**plain, **other})


def begin(name: str, pipeline: Any, seed: int = 0, said: TrainingData | None = None, **options: Any) -> Any:
    attack: Any = ATTACKS[name]()
    params = attack.Params(**{"batch": 2, **options})
    return attack.learner(params, pipeline, said or data(attack, params), seeded(seed))


def tensors(pipeline: Any) -> dict[str, Tensor]:
    """Return every tensor by component and name, as it is named without adapters; those of adapters too."""
    return {
        f"{component}.{name.replace('.base_layer', '')}": tensor.detach().clone()
        for component, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for name, tensor in part.state_dict().items()
    }


def changed(before: dict[str, Tensor], pipeline: Any) -> set[str]:
    after = tensors(pipeline)
    return {
        name
        for name in before.keys() | after.keys()
        if name not in before or name not in after or not before[name].equal(after[name])
    }


def loss_on(pipeline: Any, learner: Any, latents: Tensor, texts: tuple[str, ...]) -> float:
    """Return the denoising loss with noise that is always the same."""
    noising = Noising.of(pipeline)
    noise, t = noising.sample(latents, seeded(3))
    with torch.no_grad():
        denoiser = Denoiser.of(pipeline)
        return noising.loss(denoiser, latents, learner.encode(texts), noise, t).mean().item()
