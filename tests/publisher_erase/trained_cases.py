"""A very small model, a scope, and trainings of a few steps: what the tests of trained erasures share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from erase_fakes import concept

from publisher.api import Scope
from publisher.model.state import State
from publisher.testing.running import Silent, WatchedStep, context_of
from publisher_erase.params import EraseParams
from publisher_erase.step import Erase

SCOPE = Scope(
    concepts=(concept("cigarette", synonyms=("smoke",)), concept("pistol", synonyms=("gun",))),
    keep=tuple(concept(name) for name in ("pizza", "robot", "pencil", "dog")),
)
TARGETS = {"cigarette": "pizza", "pistol": "robot"}
QUICK: dict[str, Any] = {
    "steps": 4,
    "batch": 2,
    "keep_batch": 2,
    "pool": 2,
    "denoising_steps": 2,
    "kept_steps": 2,
    "checkpoint_every": 1,
    "warmup": 1,
}
ATTACK: dict[str, Any] = {"every": 2, "fresh": 1, "steps": 2, "batch": 2, "pool": 3, "derived_every": 2}


def params_of(method: str, **other: Any) -> EraseParams:
    """Return the parameters of a training of a few steps."""
    own = dict(QUICK)
    if method == "robust":
        own |= {"images": 8, "copies": 1, "adversarial_batch": 2, "attack": dict(ATTACK)}
    own["attack"] = {**own.get("attack", {}), **other.pop("attack", {})}
    if not own["attack"]:
        del own["attack"]
    return EraseParams.parse({"method": method, "targets": TARGETS, method: {**own, **other}})


def train(model: State, scratch: Path, method: str, scope: Scope = SCOPE, **other: Any) -> WatchedStep:
    """Run a training of a few steps, and return what it did."""
    return run(model, scratch, params_of(method, **other), scope)


def run(
    model: State, scratch: Path, params: EraseParams, scope: Scope = SCOPE, progress: Silent | None = None
) -> WatchedStep:
    """Run the step as the engine does."""
    decided = Erase().decide(params, scope, model)
    ctx = context_of(Erase, decided, model, scope, scratch, progress=progress)
    Erase().run(decided, ctx)
    return ctx
