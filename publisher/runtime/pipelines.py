"""Load a model folder: weights and configurations from this folder alone, no code, no network, no filter behind it."""

from __future__ import annotations

import copy
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Anatomy, denoiser_of
from publisher.api.loading import load_pipeline
from publisher.errors import ModelError
from publisher.model.folder import read_json

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

FILTERS: dict[str, Any] = {
    "safety_checker": None,
    "requires_safety_checker": False,
    "feature_extractor": None,
    "image_encoder": None,
}
"""Parts, and options, by which a pipeline that has them is loaded without its filters."""


def load(
    folder: Path, anatomy: Anatomy, device: torch.device, dtype: torch.dtype, *, filters: bool = False
) -> DiffusionPipeline:
    """Load the model in ``folder``, ready to generate; its attribute ``anatomy`` names its parts.

    Args:
        folder: diffusers layout; safetensors weights.
        anatomy: of the model, as its family recognised it.
        device: where it will run.
        dtype: of all weights.
        filters: keep a safety checker or watermark that the folder asks for; left out by default, because what is to be
            judged is what the weights generate.

    Raises:
        ModelError: its parts cannot be loaded.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it warns that torchvision is missing; nobody needs it
    index = read_json(folder / "model_index.json")
    absent = {name: value for name, value in FILTERS.items() if name in index and not filters}
    pipeline = load_pipeline(folder, anatomy, dtype, **absent)
    _require_complete(pipeline, folder)
    if not filters:
        pipeline.watermark = None
    for network in _networks(pipeline):
        lay_out(network.eval())
    placed: DiffusionPipeline = pipeline.to(device)
    return placed


def lay_out(network: Any) -> None:
    """Put channels last in memory, as convolutions of images are fastest; those of videos have no such format.

    Args:
        network: a module, changed in place.
    """
    import torch

    if all(weight.dim() <= 4 for weight in network.parameters()):
        network.to(memory_format=torch.channels_last)


def lay_out_to_train(network: Any) -> None:
    """Put channels first again where convolutions are trained on a CPU: a step takes a quarter less on a small U-Net.

    Args:
        network: a module, changed in place; its parameters stay the same objects, without gradients so far.
    """
    import torch

    trained = [weight for weight in network.parameters() if weight.requires_grad and weight.dim() == 4]
    if any(weight.device.type == "cpu" for weight in trained):
        network.to(memory_format=torch.contiguous_format)


def _networks(pipeline: DiffusionPipeline) -> tuple[Any, Any]:
    return denoiser_of(pipeline), pipeline.vae


def _require_complete(pipeline: DiffusionPipeline, folder: Path) -> None:
    """Refuse a weight that no file holds: diffusers leaves it without data, and says so in a warning alone."""
    for component in _networks(pipeline):
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
    other.anatomy = pipeline.anatomy
    if kind is not type(pipeline):
        type(pipeline).attachment.serve(other)
    return other


def _options(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Return what a pipeline was made with besides its components."""
    names = ("requires_safety_checker", "force_zeros_for_empty_prompt", "add_watermarker")
    accepted = inspect.signature(type(pipeline).__init__).parameters
    found = {name: pipeline.config[name] for name in names if name in accepted and name in pipeline.config}
    return found | ({"add_watermarker": False} if "add_watermarker" in accepted else {})
