"""Attacks that train: how a concept is learned again. Importing this imports neither torch nor peft."""

from __future__ import annotations

from publisher.api import TrainingAttack
from publisher.builtin.training.attacks import (
    CrossAttention,
    CustomDiffusion,
    DreamBooth,
    DreamBoothLora,
    FullFinetune,
    Lora,
    TextualInversion,
)

TRAINING_ATTACKS: tuple[type[TrainingAttack], ...] = (  # type: ignore[type-arg]
    FullFinetune,
    CrossAttention,
    Lora,
    DreamBooth,
    DreamBoothLora,
    TextualInversion,
    CustomDiffusion,
)
