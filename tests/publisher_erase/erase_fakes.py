"""A model that is a table of headers, and a context that remembers what it was told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from publisher.api import (
    Anatomy,
    Concept,
    Latents,
    Model,
    ModelInfo,
    References,
    Scope,
    StepContext,
    TensorInfo,
    TextEncoder,
)

SD1 = Anatomy(
    "stable-diffusion-1",
    "unet",
    (TextEncoder("text_encoder", "tokenizer", 8),),
    8,
    Latents(4, 8, 8),
    cross_attention="attn2",
)
PARTS = ("text_encoder", "tokenizer", "unet")
KEY, VALUE = ".attn2.to_k.weight", ".attn2.to_v.weight"


def projections(layers: int = 2, width: int = 8, dtype: str = "F32") -> dict[str, TensorInfo]:
    names = [f"down_blocks.{i}{end}" for i in range(layers) for end in (KEY, VALUE)]
    return {name: TensorInfo(name, (16, width), dtype, "unet/weights.safetensors") for name in names}


@dataclass
class Headers(ModelInfo):
    """A model made of headers alone."""

    unet: dict[str, TensorInfo] = field(default_factory=projections)
    anatomy: Anatomy = SD1  # type: ignore[assignment]
    components: tuple[str, ...] = PARTS  # type: ignore[assignment]
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def config(self, component: str) -> Mapping[str, Any]:
        return self.configs.get(component, {})

    def base_files(self, component: str) -> Path:
        raise NotImplementedError(component)

    def tensors(self, component: str) -> Mapping[str, TensorInfo]:
        return self.unet if component == "unet" else {}

    def add(self, name: str, dtype: str = "F32") -> Headers:
        self.unet[name] = TensorInfo(name, (16, 8), dtype, "unet/weights.safetensors")
        return self


class Context(StepContext):
    """Everything a step says, in lists."""

    def __init__(self, scope: Scope, model: Model) -> None:
        self.scope, self.model = scope, model
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.scratch = Path("unused")
        self.written: dict[str, torch.Tensor] = {}
        self.numbers: dict[str, float] = {}
        self.warnings: list[str] = []
        self.steps: list[tuple[int, int]] = []

    def write(self, component: str, name: str, tensor: torch.Tensor) -> None:
        info = self.model.tensors(component)[name]
        assert tuple(tensor.shape) == info.shape
        self.written[name] = tensor

    def artifact(self, name: str, data: bytes) -> None:
        raise AssertionError(f"the step makes no artifact: {name}, {len(data)} bytes")

    def generator(self, purpose: str) -> torch.Generator:
        raise AssertionError(f"the step generates nothing: {purpose}")

    def references(self, concept: str, count: int) -> References:
        raise AssertionError(f"the step looks at no image: {count} of {concept}")

    def progress(self, done: int, total: int, text: str = "") -> None:
        assert text
        self.steps.append((done, total))

    def record(self, name: str, value: float, unit: str = "") -> None:
        self.numbers[name] = value

    def curve(self, name: str, x: Sequence[float], y: Sequence[float], unit: str = "") -> None:
        raise AssertionError(f"the step has no curve: {name}")

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def concept(name: str, *prompts: str, synonyms: tuple[str, ...] = ()) -> Concept:
    paraphrases = tuple(f"a {word} emoji" for word in synonyms)
    return Concept(
        id=name.replace(" ", "-"),
        name=name,
        synonyms=synonyms,
        prompts=prompts or (f"a {name} emoji",),
        paraphrases=paraphrases,
        label=name,
    )
