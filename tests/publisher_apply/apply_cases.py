"""Weights from elsewhere, made of the embedded model, and the step run on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from publisher.api import Concept, Model, Scope
from publisher_apply.params import ApplyParams
from publisher_apply.step import Apply

SCOPE = Scope(concepts=(Concept(id="gun", name="gun", prompts=("a gun",), label="gun"),))
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
KEY = f"{LAYER}.weight"
CONV = "down_blocks.1.resnets.0.conv1"


class Context:
    """What the step uses of its context."""

    def __init__(self, model: Model) -> None:
        self.model, self.written = model, dict[tuple[str, str], Tensor]()
        self.numbers: dict[str, float] = {}

    def write(self, component: str, name: str, tensor: Tensor) -> None:
        self.written[component, name] = tensor

    def record(self, name: str, value: float, unit: str = "") -> None:
        self.numbers[name] = value

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Show nothing."""


def made(files: Mapping[str, Path], given: Any, **more: Any) -> tuple[Apply, ApplyParams]:
    """Return the step and its parameters; ``given`` is what a manifest has under ``from``."""
    step, params = Apply(), ApplyParams.parse({"from": given, **more})
    step.files = {name: files[name] for name in step.inputs(params)}
    return step, params


def run(model: Model, files: Mapping[str, Path], given: Any, **more: Any) -> Context:
    """Run the step, and check that it writes what its plan says."""
    step, params = made(files, given, **more)
    plan = step.plan(params, SCOPE, model)
    ctx = Context(model)
    step.run(params, ctx)  # type: ignore[arg-type]
    planned = {(component, name) for component, names in plan.changes.items() for name in names}
    assert planned == set(ctx.written)
    return ctx


def weights(model: Model, component: str = "unet") -> dict[str, Tensor]:
    """Return a component's tensors."""
    return {name: model.read(component, name) for name in model.tensors(component)}


def saved(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata)
    return path


def changed(file: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors of a file in place."""
    tensors = load_file(file)
    change(tensors)
    saved(file, tensors)


def noise(tensor: Tensor, seed: int = 0, size: float = 0.01) -> Tensor:
    """Return the tensor with noise on it, in its type."""
    generator = torch.Generator().manual_seed(seed)
    return (tensor + size * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
