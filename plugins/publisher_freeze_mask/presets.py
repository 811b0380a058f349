"""What a manifest leaves out: values for a small model, for a large one, and the papers' own. Imports no torch.

AdamW at 1e-5, 2000 steps, batch 4, weight decay 1e-2 are FreezeAsGuard's relearning and its user. ``large`` takes them,
with masks by scores; ``paper`` is the released mask learner as well, whose mask is its random initialisation.
``small`` was found on the embedded model, by two objects and a style, and is measured on others in
``docs/explanation/defaults.md``: a network of at most 32 x 32 latents learns with ten times the rate in a few dozen
steps.
"""

from __future__ import annotations

from typing import Any

from publisher.api import ModelInfo
from publisher.api.presets import preset_of
from publisher_freeze_mask.params import FreezeMaskParams

PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "innocents": 1,
        "lam": 0.8,
        "adapt": {"lr": 1e-4, "steps": 30},
        "score": {"points": 3, "batches": 1},
        "replicas": 0,
        "random_at_most": 0.9,
        "innocent_at_least": 0.5,
        "check": {
            "evaluation_steps": [0, 12],
            "images_per_evaluation": 4,
            "innocents": 1,
            "compare": False,
            "settings": {"lr": 1e-4},
        },
    },
    "large": {"adapt": {"lr": 1e-5, "steps": 2000}},
    "paper": {
        "count": "tensors",
        "one_d": "include",
        "recipe": "released",
        "images": 100,
        "keep_images": 100,
        "adapt": {"learn": "together", "lr": 1e-5, "steps": 2000},
        "released": {"steps": 2000},
        "replicas": 0,
    },
}


def resolve(params: FreezeMaskParams, model: ModelInfo) -> FreezeMaskParams:
    """Return the parameters with everything that their preset says; what was given by name stays."""
    preset = preset_of(params.preset, model)
    return params.filled(PRESETS[preset]).model_copy(update={"preset": preset})
