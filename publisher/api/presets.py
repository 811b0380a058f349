"""Presets of a step: values that go together, by the size of the model, and the papers' own under their name.

A step has the parameter ``preset``, decides in :meth:`publisher.api.Step.decide` which values it stands for, and takes
them by :meth:`publisher.api.Params.filled`: a parameter that is given by name wins over any preset.
"""

from __future__ import annotations

from typing import Literal

from publisher.api.models import ModelInfo

Preset = Literal["auto", "small", "large", "paper"]
SMALL_SIZE = 32
"""Largest height and width of a small model's latents."""


def preset_of(asked: Preset, model: ModelInfo) -> Literal["small", "large", "paper"]:
    """Return the preset that is meant: ``auto`` is the one of the model's size.

    Args:
        asked: as the manifest has it.
        model: latents of at most 32 x 32 make it a small one. Such a network learns with larger rates in fewer steps.
    """
    if asked != "auto":
        return asked
    height, width = model.anatomy.latents.size
    return "small" if height * width <= SMALL_SIZE**2 else "large"
