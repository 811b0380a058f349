"""Concepts, invented images, and a running step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from publisher.api import Concept, Model, References, Scope
from publisher.builtin.families import StableDiffusion1, StableDiffusionXL
from publisher.engine.cache import Identity
from publisher.engine.context import RunningStep
from publisher.engine.device import Device
from publisher.model.folder import ModelFolder, read_configs
from publisher.model.state import State
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.step import Immunize
from support.toys import ORIGIN, Silent

SKULL = Concept(
    id="skull",
    name="skull",
    synonyms=("death head",),
    prompts=("a skull emoji", "a skull emoji in noto style"),
    paraphrases=("a death head emoji",),
    description="a white face with black eyes",
    label="skull",
)
PIZZA = Concept(id="pizza", name="pizza", prompts=("a pizza emoji", "a pizza emoji in noto style"), label="pizza")
GHOST = Concept(id="ghost", name="ghost", prompts=("a ghost emoji",), label="ghost")
CAT = Concept(id="cat", name="cat", prompts=("a cat emoji", "a cat emoji in noto style"), label="cat")
SCOPE = Scope(concepts=(SKULL, PIZZA), keep=(GHOST, CAT), keep_prompts=("a drawing", "nothing at all"))
SHORT = {
    "preset": "large",
    "prior_batch": 2,
    "steps": 3,
    "batch": 2,
    "images": 4,
    "keep_images": 2,
    "inner": "cross-attention",
    "lr": 1e-3,
    "inner_lr": 1e-3,
    "lam": 1.0,
}


def model_of(folder: Path) -> State:
    """Return a step's input, made of a folder."""
    configs = read_configs(folder)
    families = (StableDiffusion1(), StableDiffusionXL())
    anatomy = next(found for family in families if (found := family.recognise(configs)))
    return State(ModelFolder(folder, anatomy, configs), (), folder.parent / "states")


def images(concept: str, count: int) -> References:
    """Make images of the concept's colour."""
    found = SCOPE.concept(concept)
    generator = torch.Generator().manual_seed(sum(map(ord, concept)))
    colour = torch.rand(1, 3, 1, 1, generator=generator)
    pixels = (colour + 0.2 * torch.rand(count, 3, 8, 8, generator=generator)).clamp(0, 1)
    return References(pixels, tuple(found.prompts[i % len(found.prompts)] for i in range(count)))


def sets(counts: Mapping[str, int]) -> dict[str, References]:
    """Make images of several concepts."""
    return {concept: images(concept, count) for concept, count in counts.items()}


class Killed(Exception):  # noqa: N818 - no error: a signal
    """As if by a signal."""


class KillingAt(Silent):
    """Ends the run after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        """Raise when it is time."""
        if done == self.step:
            raise Killed


def context(
    model: Model,
    tmp_path: Path,
    params: ImmunizeParams,
    scope: Scope = SCOPE,
    dtype: str = "float32",
    progress: Silent | None = None,
) -> RunningStep:
    """Return a context as the engine makes it."""
    identity = Identity(
        name="immunize",
        version="1",
        origin=ORIGIN,
        id="immunize",
        params=params.as_json(),
        scope=scope,
        seed=0,
        device=Device("cpu", dtype),
        versions={},
    )
    return RunningStep(identity, model, tmp_path, progress or Silent(), sets)


def run(
    model: Model,
    tmp_path: Path,
    scope: Scope = SCOPE,
    dtype: str = "float32",
    progress: Silent | None = None,
    **data: Any,
) -> RunningStep:
    """Plan and run; the plan lists exactly what was written."""
    params = ImmunizeParams.parse({**SHORT, **data})
    ctx = context(model, tmp_path, params, scope, dtype, progress)
    plan = Immunize().plan(params, scope, model)
    Immunize().run(params, ctx)
    assert {component: sorted(names) for component, names in plan.changes.items()} == ctx.changed()
    return ctx
