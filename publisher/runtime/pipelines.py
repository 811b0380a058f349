"""Load a model folder: weights and configurations from this folder alone, no code, no network, no filter behind it."""

from __future__ import annotations

import copy
import inspect
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api.loading import quiet
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
"""Pipeline that a folder names -> the pipeline of the same parts that generates from words alone."""
FILTERS: dict[str, Any] = {
    "safety_checker": None,
    "requires_safety_checker": False,
    "feature_extractor": None,
    "image_encoder": None,
}
"""What is left out of a pipeline that has it."""


def load(folder: Path, device: torch.device, dtype: torch.dtype, *, filters: bool = False) -> DiffusionPipeline:
    """Load the model in ``folder``, ready to generate.

    Args:
        folder: diffusers layout; safetensors weights.
        device: where it will run.
        dtype: of all weights.
        filters: keep a safety checker or watermark that the folder asks for; left out by default, because what is to be
            judged is what the weights generate.

    Raises:
        ModelError: no such pipeline, or its parts cannot be loaded.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that torchvision is missing; nobody needs it
    import diffusers
    import torch

    index = read_index(folder)
    kind = getattr(diffusers, CLASSES[index["_class_name"]])
    absent = {name: value for name, value in FILTERS.items() if name in index and not filters}
    try:
        with quiet():
            pipeline = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype, **absent)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(folder)) from error
    _require_complete(pipeline, folder)
    pipeline.set_progress_bar_config(disable=True)
    if not filters:
        pipeline.watermark = None
    for network in (pipeline.unet, pipeline.vae):
        network.eval().to(memory_format=torch.channels_last)
    return pipeline.to(device)


def _require_complete(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Refuse a weight that no file holds: diffusers leaves it without data, and says so in a warning alone."""
    for component in (pipeline.unet, pipeline.vae):
        absent = [name for name, weight in component.named_parameters() if weight.is_meta]
        if absent:
            what = f"the {type(component).__name__} lacks {len(absent)} tensors that its configuration asks for"
            raise ModelError(f"{what}, such as {absent[0]!r}", where=str(folder), hint="Fetch its files again.")


def twin(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """Return the same networks, and what is attached to them, with scheduler and tokenizers for another thread."""
    own = {
        name: copy.deepcopy(part) if name == "scheduler" or name.startswith("tokenizer") else part
        for name, part in pipeline.components.items()
    }
    kind = getattr(type(pipeline), "plain_class", type(pipeline))
    other = kind(**own, **_options(pipeline))
    other.set_progress_bar_config(disable=True)
    other.watermark = getattr(pipeline, "watermark", None)
    if kind is not type(pipeline):
        type(pipeline).attachment.serve(other)
    return other


def _options(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Return what a pipeline was made with besides its components."""
    names = ("requires_safety_checker", "force_zeros_for_empty_prompt", "add_watermarker")
    accepted = inspect.signature(type(pipeline).__init__).parameters
    found = {name: pipeline.config[name] for name in names if name in accepted and name in pipeline.config}
    return found | ({"add_watermarker": False} if "add_watermarker" in accepted else {})


def read_index(folder: Path) -> dict[str, Any]:
    """Read the folder's ``model_index.json``.

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
            f"the pipeline {name!r} cannot be generated with", where=str(path), hint=f"Known: {', '.join(CLASSES)}."
        )
    return index
