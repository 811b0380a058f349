"""Anatomies of real folders, and of toys, for tests that do not go through a manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from publisher.api import Anatomy, ModelInfo
from publisher.model.folder import read_configs
from publisher.registry import load_registry
from publisher_emoji import model_folder


def anatomy_of(folder: Path) -> Anatomy:
    """Return the anatomy that the installed families give a folder."""
    return load_registry().recognise(read_configs(folder), str(folder))[1]


EMBEDDED = anatomy_of(model_folder())
"""Anatomy of the embedded model: a U-Net with one text encoder and latents of 8 x 8."""


def model_of_size(size: int, family: str = "stable-diffusion-1") -> ModelInfo:
    """Return a model of which nothing is known but its family and the size of its latents."""
    latents = replace(EMBEDDED.latents, height=size, width=size)
    return cast("ModelInfo", SimpleNamespace(anatomy=replace(EMBEDDED, latents=latents, family=family)))
