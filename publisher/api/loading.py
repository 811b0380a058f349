"""Load parts of the model for a step that has to run them: from its input, without network and progress bars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api.families import Anatomy
from publisher.api.models import Model
from publisher.errors import ModelError

if TYPE_CHECKING:
    import torch

LIBRARIES = ("diffusers", "transformers")
"""Where the classes of a model's parts may come from; others would run code that nobody has checked."""
_CRASHES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError)


def load_component(model: Model, component: str, device: torch.device | str, dtype: torch.dtype) -> Any:
    """Return one part of the model as diffusers or transformers make it, in evaluation mode, without gradients.

    Args:
        model: a step's input.
        component: a folder, such as the denoiser's; a tokenizer comes as it is, whatever ``device`` and ``dtype`` say.
        device: where it will run.
        dtype: of its weights.

    Raises:
        ModelError: a class of another library, or weights that cannot be loaded or are not all there.
    """
    kind = _class_of(model, component)
    folder = model.folder / component
    network = not component.startswith("tokenizer")
    options = {_dtype_key(kind): dtype, "output_loading_info": True} if network else {}
    try:
        with quiet():
            found = kind.from_pretrained(folder, local_files_only=True, **options)
    except _CRASHES as error:
        raise ModelError(f"{component} cannot be loaded: {error}", where=str(folder)) from error
    if not network:
        return found
    part, info = found
    if missing := sorted(info["missing_keys"]):  # the libraries fill them at random, and only warn
        what = f"{component} lacks {len(missing)} weights of its class, such as {missing[0]}"
        raise ModelError(what, where=str(folder))
    return part.to(device).eval().requires_grad_(False)


def load_pipeline(
    folder: Path, anatomy: Anatomy, dtype: torch.dtype, *, without: Sequence[str] = (), **options: Any
) -> Any:
    """Return the pipeline of a model folder that generates from words alone, on the CPU, with ``anatomy`` as attribute.

    Weights and configurations come from this folder alone: no code, no network.

    Args:
        folder: diffusers layout; safetensors weights.
        anatomy: of the model.
        dtype: of all weights.
        without: parts that are not loaded; they are None.
        options: further arguments of ``from_pretrained``.

    Raises:
        ModelError: diffusers has no such pipeline, or a part cannot be loaded.
    """
    import diffusers

    name = anatomy.pipeline or "DiffusionPipeline"  # which reads the class from the folder's index
    kind = getattr(diffusers, name, None)
    if kind is None:
        raise ModelError(
            f"diffusers {diffusers.__version__} has no pipeline {name!r}",
            where=str(folder),
            hint="Install the version of diffusers that the model was made for.",
        )
    try:
        absent = dict.fromkeys((*_left_out(folder), *without))
        with quiet():
            pipeline = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype=dtype, **absent, **options
            )
    except _CRASHES as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(folder)) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.anatomy = anatomy
    return pipeline


def _left_out(folder: Path) -> tuple[str, ...]:
    """Return the text encoders and tokenizers that the index says are not there; diffusers wants to be told so."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    names = [name for name in index if name.startswith(("text_encoder", "tokenizer"))]
    return tuple(name for name in names if index[name] == [None, None])


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the progress bars of diffusers and transformers; they are put back as they were."""
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


def _class_of(model: Model, component: str) -> Any:
    """Return the class that ``model_index.json`` names: what the pipeline itself would load."""
    entry = model.config("model_index").get(component)
    library, name = entry if isinstance(entry, (list, tuple)) and len(entry) == 2 else ("", "")
    kind = getattr(__import__(library), str(name), None) if library in LIBRARIES else None
    if kind is None:
        raise ModelError(
            f"is a {name or 'part without a class name'}, which is no class of {' or '.join(LIBRARIES)}",
            where=component,
            hint="Parts of other libraries, and code of the model's own, are never run.",
        )
    return kind


def _dtype_key(kind: Any) -> str:
    return "torch_dtype" if kind.__module__.startswith("diffusers.") else "dtype"
