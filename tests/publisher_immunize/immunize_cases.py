"""Concepts, and a running step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from publisher.api import Concept, Scope
from publisher.engine.context import RunningStep
from publisher.model.state import State
from publisher.testing.running import Silent, context_of
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.step import Immunize

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


def context(
    model: State,
    tmp_path: Path,
    params: ImmunizeParams,
    scope: Scope = SCOPE,
    dtype: str = "float32",
    progress: Silent | None = None,
) -> RunningStep:
    """Return a context as the engine makes it."""
    return context_of(Immunize, params, model, scope, tmp_path, dtype=dtype, progress=progress)


def run(
    model: State,
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
