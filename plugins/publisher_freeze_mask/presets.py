"""Defaults of theta_ft: the authors' for Stable Diffusion, others for a small network. Imports no torch.

AdamW at 1e-5, 2000 steps, batch 4, weight decay 1e-2: FreezeAsGuard's relearning and its user. A network of at most
32 x 32 latents learns with ten times the rate in a few dozen steps.
"""

from __future__ import annotations

from typing import Any

from publisher.api import ModelInfo
from publisher_freeze_mask.params import FreezeMaskParams

LARGE: dict[str, Any] = {"lr": 1e-5, "steps": 2000}
SMALL: dict[str, Any] = {"lr": 1e-4, "steps": 40}
SMALL_SIZE = 32
"""Largest height and width of a small model's latents."""


def resolve(params: FreezeMaskParams, model: ModelInfo) -> FreezeMaskParams:
    """Return the parameters with every None replaced."""
    height, width = model.anatomy.latents.size
    known = SMALL if height * width <= SMALL_SIZE**2 else LARGE
    missing = {name: value for name, value in known.items() if getattr(params.adapt, name) is None}
    return params.model_copy(update={"adapt": params.adapt.model_copy(update=missing)})
