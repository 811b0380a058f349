"""Load a model folder: weights and configurations from this folder alone, no code, no network, no filter behind it."""

from __future__ import annotations

import copy
import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.errors import ModelError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

CLASSES = {
    "StableDiffusionPipeline": "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline": "StableDiffusionPipeline",
    "StableDiffusionInpaintPipeline": "StableDiffusionPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline": "StableDiffusionXLPipeline",
    "StableDiffusionXLInpaintPipeline": "StableDiffusionXLPipeline",
}
"""Pipeline that a folder names -> the pipeline of the same parts that draws from words alone."""
FILTERS: dict[str, Any] = {
    "safety_checker": None, "requires_safety_checker": False, "feature_extractor": None, "image_encoder": None
}  # fmt: skip
"""What is left out of a pipeline that has it."""


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> DiffusionPipeline:
    """The model in ``folder``, ready to draw.

    A safety checker or watermark in the folder is left out: what is to be judged is what the weights draw.

    Args:
        folder: diffusers layout; safetensors weights.
        device: where it will run.
        dtype: of all weights.

    Raises:
        ModelError: no such pipeline, or its parts cannot be loaded.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that torchvision is missing; nobody needs it
    import diffusers
    import torch

    index = read_index(folder)
    kind = getattr(diffusers, CLASSES[index["_class_name"]])
    absent = {name: value for name, value in FILTERS.items() if name in index}
    try:
        with _no_progress_bars():
            pipeline = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype, **absent)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(folder)) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.watermark = None
    for network in (pipeline.unet, pipeline.vae):
        network.eval().to(memory_format=torch.channels_last)
    return pipeline.to(device)


def twin(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """The same networks with a scheduler and tokenizers of its own, for use in another thread."""
    own = {
        name: copy.deepcopy(part) if name == "scheduler" or name.startswith("tokenizer") else part
        for name, part in pipeline.components.items()
    }
    other = type(pipeline)(**own, **_options(pipeline))
    other.set_progress_bar_config(disable=True)
    other.watermark = None
    return other


def _options(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """What a pipeline was made with besides its components."""
    names = ("requires_safety_checker", "force_zeros_for_empty_prompt", "add_watermarker")
    accepted = inspect.signature(type(pipeline).__init__).parameters
    found = {name: pipeline.config[name] for name in names if name in accepted and name in pipeline.config}
    return found | ({"add_watermarker": False} if "add_watermarker" in accepted else {})


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's ``model_index.json``.

    Raises:
        ModelError: it is missing or malformed, or names a pipeline that is not one of :data:`CLASSES`.
    """
    path = folder / "model_index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"not a diffusers model: {error}", where=str(path)) from error
    name = index.get("_class_name") if isinstance(index, dict) else None
    if not isinstance(index, dict) or not isinstance(name, str) or name not in CLASSES:
        raise ModelError(
            f"the pipeline {name!r} cannot be drawn with", where=str(path), hint=f"Known: {', '.join(CLASSES)}."
        )
    return index


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Ours is the only progress bar; theirs are put back as they were."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    shown = [log for log in (diffusers_logging, transformers_logging) if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()
