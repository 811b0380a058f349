"""What a manifest leaves out of a training: steps and rates, by the size of the model. No torch.

Those of a small model were found on the embedded one (``docs/explanation/erase.md``). Those of a large one are starting
points that nobody has tried; the plan says so.
"""

from __future__ import annotations

from typing import Any

from publisher.api import Anatomy, ModelInfo
from publisher.api.presets import preset_of
from publisher_erase.params import EraseParams, RobustParams, SurgicalParams, TextSearch

RATES: dict[tuple[str, str], dict[str, float]] = {
    ("surgical", "small"): {"kv": 5e-4, "cross-attention": 3e-4, "full": 1e-4},
    ("surgical", "large"): {"kv": 1e-4, "cross-attention": 5e-5, "full": 1e-5},
    ("robust", "small"): {"kv": 1e-3, "cross-attention": 1e-3, "full": 3e-4},
    ("robust", "large"): {"kv": 1e-4, "cross-attention": 5e-5, "full": 1e-5},
}
"""Method and size -> peak learning rate of each set of weights."""
STEPS = {("surgical", "small"): 25, ("surgical", "large"): 500, ("robust", "small"): 200, ("robust", "large"): 1000}
"""Method and size -> number of steps."""
TRIED_CONCEPTS = 2
"""Number of concepts at once that those of a small model were tried with; they take turns."""
PRESERVE_SCALE = 10.0
"""Preserve scale of the closed form that a training starts from."""


def resolve_training(params: EraseParams, model: ModelInfo) -> EraseParams:
    """Return the parameters with those of the method's training decided; a closed form has none."""
    if params.method not in ("surgical", "robust"):
        return params
    plain = SurgicalParams() if params.method == "surgical" else RobustParams()
    given = params.training or plain
    key = (params.method, preset_of("auto", model))
    values: dict[str, Any] = {"steps": STEPS[key], "lr": RATES[key][given.parts]}
    if isinstance(given, RobustParams):
        values["promises"] = _searches(model.anatomy)
        values |= {} if derives(model.anatomy) else {"attack": {"kinds": ["states"]}}
    return params.filled({"preserve_scale": PRESERVE_SCALE, params.method: given.filled(values).as_json()})


def _searches(anatomy: Anatomy) -> list[TextSearch]:
    """Return the attacks that look for what an encoder or a projection reads, as far as they run on a family."""
    found: list[TextSearch] = ["derived-embedding"] if derives(anatomy) else []
    return [*found, "concept-inversion"] if {"clip-text", "training"} <= anatomy.capabilities else found


def derives(anatomy: Anatomy) -> bool:
    """Tell whether keys and values read the text as its encoders write it, so that rows can be derived from them."""
    return bool(anatomy.cross_attention) and anatomy.entry_width is None


def steps_tried(params: EraseParams, model: ModelInfo) -> float:
    """Return how many steps each concept has by default, if there are as many as were tried at once."""
    return STEPS[params.method, preset_of("auto", model)] / TRIED_CONCEPTS


def is_untried(model: ModelInfo) -> bool:
    """Return whether the defaults of a training were never tried on a model of this size."""
    return preset_of("auto", model) == "large"
