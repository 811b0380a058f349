"""Load parts of the model for a step that has to run them: from its input, without network and progress bars."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from publisher.api.models import Model
from publisher.errors import ModelError

if TYPE_CHECKING:
    import torch

CLASSES = {
    "diffusers": ("AutoencoderKL", "UNet2DConditionModel"),
    "transformers": ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPTokenizer"),
}
"""What :func:`load_component` makes; other classes need code of their own."""


def load_component(model: Model, component: str, device: torch.device | str, dtype: torch.dtype) -> Any:
    """One part of the model as diffusers or transformers make it, in evaluation mode, without gradients.

    Args:
        model: a step's input.
        component: a folder, such as ``"unet"``; a tokenizer comes as it is, whatever ``device`` and ``dtype`` say.
        device: where it will run.
        dtype: of its weights.

    Raises:
        ModelError: a class that is none of :data:`CLASSES`, or weights that cannot be loaded.
    """
    library, name = _class_of(model, component)
    kind = getattr(__import__(library), name)
    folder = model.folder / component
    plain = {} if name == "CLIPTokenizer" else {"dtype" if library == "transformers" else "torch_dtype": dtype}
    try:
        with quiet():
            part = kind.from_pretrained(folder, local_files_only=True, **plain)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise ModelError(f"{component} cannot be loaded: {error}", where=str(folder)) from error
    if plain:
        part = part.to(device).eval().requires_grad_(False)
    return part


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of diffusers and transformers; they are put back as they were."""
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


def _class_of(model: Model, component: str) -> tuple[str, str]:
    config = model.config(component)
    if component.startswith("tokenizer"):
        return "transformers", "CLIPTokenizer"
    name = config.get("_class_name") or (config.get("architectures") or [""])[0]
    for library, names in CLASSES.items():
        if name in names:
            return library, name
    known = ", ".join(name for names in CLASSES.values() for name in names)
    raise ModelError(f"is a {name or 'part without a class name'}, not one of {known}", where=component)
