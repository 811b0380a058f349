"""Generate with the embedded model: prompts and seeds to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from publisher_emoji import model_folder

BATCH = 64


def load_pipeline(folder: Path | None = None) -> Any:
    """Load the embedded model, or the folder of another, as a plain diffusers pipeline on the CPU."""
    pipeline = DiffusionPipeline.from_pretrained(folder or model_folder())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: Any, prompts: Sequence[str], seed: int, *, steps: int = 20, guidance: float = 3.0) -> Tensor:
    """Generate one image for each prompt.

    Image ``i`` depends on its prompt, ``seed`` and ``i`` alone as far as random numbers go: each has its own generator.

    Args:
        pipeline: pipeline that :func:`load_pipeline` returned.
        prompts: such as ``"a pizza emoji in noto style"``; n of them.
        seed: names the random numbers.
        steps: sampling steps.
        guidance: classifier-free guidance scale.

    Returns:
        ``(n, 3, 32, 32)`` float32 in [-1, 1].

    Raises:
        ValueError: no prompt.
    """
    if not prompts:
        raise ValueError("nothing to generate: give at least one prompt")
    arguments: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
    if third := getattr(pipeline, "tokenizer_3", None):  # its pipeline asks for 256 rows, of which it knows no more
        arguments["max_sequence_length"] = third.model_max_length
    images = []
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        generators = [torch.Generator().manual_seed(seed * 1_000_003 + start + i) for i in range(len(part))]
        images.append(pipeline(part, generator=generators, **arguments).images * 2 - 1)
    return torch.cat(images)
