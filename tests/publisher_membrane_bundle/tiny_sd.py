"""A very small Stable Diffusion with random weights, and what a training needs around it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from publisher.testing.tiny import save_tiny_model
from publisher_emoji import model_folder
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.plan import Target
from publisher_membrane_bundle.train import Session

CAT = Target("cat", ("cat",), ("",), ("cat",))
DOG = Target("dog", ("dog", "big dog"), ("cat", ""), ("dog", "big dog"))


def save_tiny_sd(target: Path, prediction: str = "epsilon") -> Path:
    """Save 48 hosts, 12 of each transformer; the prompt has a marked effect, as in a trained model."""
    tokenizer = model_folder() / "tokenizer"
    return save_tiny_model(target, width=16, channels=(16, 32), prediction=prediction, tokenizer=tokenizer)


def seeded(purpose: str) -> torch.Generator:
    """Return a generator as the engine makes it: another stream for another purpose."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:6]))


def silent(_done: int, _total: int, _text: str) -> None:
    """Show nothing."""


def session(scratch: Path, progress: Callable[[int, int, str], None] = silent, **other: Any) -> Session:
    """Return a session on the CPU, in float32."""
    plain = {"device": torch.device("cpu"), "dtype": torch.float32, "generator": seeded}
    return Session(**{**plain, **other}, scratch=scratch, progress=progress)


def quick(**other: Any) -> MembraneParams:
    """Return a short training with a large learning rate."""
    plain = {"steps": 8, "warmup": 2, "cycles": 1, "lr": 3e-3, "lam": 10.0, "pool": 4, "denoising_steps": 6}
    return MembraneParams(**{**plain, **other})
