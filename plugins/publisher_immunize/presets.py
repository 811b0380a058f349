"""Defaults of the papers for each mode, and of each kind of model. Imports no torch.

                     re-learning   personalisation     (MIMA's released trainer, scripts and README)
    inner lr         1e-5          1e-5                5e-6, doubled by its scale_lr
    outer lr         3e-5          2e-5
    steps            500           500                 1000, half of them inner
    images           20            4                   personalisation: all that there are, 4 to 6
    class images     200           2
    batch            1             1                   one of the concept and one of the class, for each concept

They are for Stable Diffusion 1.4. For XL nobody published any: the outer rate is halved, for it has three times the
layers. A network of at most 32 x 32 latents learns with larger rates and larger batches, as every small network does.
"""

from __future__ import annotations

from typing import Any

from publisher.api import ModelInfo
from publisher_immunize.params import ImmunizeParams

MODES: dict[str, dict[str, Any]] = {
    "relearning": {"inner_lr": 1e-5, "lr": 3e-5, "steps": 500, "images": 20, "keep_images": 8},
    "personalization": {"inner_lr": 1e-5, "lr": 2e-5, "steps": 500, "images": 4, "keep_images": 2},
}
EVERY = {"batch": 1, "prior_batch": 1}
FAMILIES: dict[str, dict[str, Any]] = {"stable-diffusion-xl": {"lr": 1.5e-5}}
SMALL: dict[str, Any] = {"inner_lr": 1e-3, "lr": 2e-4, "steps": 200, "batch": 4, "prior_batch": 2, "keep_images": 2}
SMALL_SIZE = 32
"""Largest height and width of a small model's latents."""


def resolve(params: ImmunizeParams, model: ModelInfo) -> ImmunizeParams:
    """Return the parameters with every None replaced."""
    height, width = model.anatomy.latents.size
    small = SMALL if height * width <= SMALL_SIZE**2 else {}
    known = EVERY | MODES[params.mode] | FAMILIES.get(model.anatomy.family, {}) | small
    missing = {name: value for name, value in known.items() if getattr(params, name) is None}
    return params.model_copy(update=missing)
