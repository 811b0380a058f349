"""The independent scorer: names the object and the style of an image.

A small convolutional network that saw real renderings only (``training/scorer.py``), never an image of the generator.
It is for judging, never for training: no loss of the generator or of a hardening step may contain it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

SCORER_FOLDER = Path(__file__).parent / "data" / "scorer"
"""Folder of the shipped classifier."""
NOTHING = "nothing"
"""Name of the class for images that show no object of the vocabulary (blank, noise, scrambled)."""


@dataclass(frozen=True)
class EmojiLabels:
    """The classifier's judgement of one image."""

    object: str
    """Likeliest object, or :data:`NOTHING`."""
    object_probability: float
    """Probability of the object, 0 to 1."""
    style: str
    """Likeliest style; it means nothing when there is no object."""
    style_probability: float
    """Probability of the style, 0 to 1."""


class ScorerNet(nn.Module):
    """Four stages of two 3x3 convolutions each, and two linear heads.

    Shapes: ``(b, 3, 32, 32)`` in [-1, 1] to object logits ``(b, objects + 1)``, style logits ``(b, styles)``.
    """

    def __init__(self, channels: tuple[int, ...], objects: int, styles: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for stage, channel in enumerate(channels):
            layers += [] if stage == 0 else [nn.MaxPool2d(2)]
            layers += [*_convolution(width, channel), *_convolution(channel, channel)]
            width = channel
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.object_head = nn.Linear(4 * width, objects + 1)
        self.style_head = nn.Linear(4 * width, styles)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return object logits and style logits; see the class for shapes."""
        features = self.features(pixels)
        return self.object_head(features), self.style_head(features)


def _convolution(width: int, channel: int) -> list[nn.Module]:
    return [nn.Conv2d(width, channel, 3, padding=1, bias=False), nn.BatchNorm2d(channel), nn.ReLU(inplace=True)]


class EmojiClassifier:
    """A trained :class:`ScorerNet` that judges images."""

    def __init__(self, net: ScorerNet, objects: tuple[str, ...], styles: tuple[str, ...]) -> None:
        self.net = net.eval()
        self.objects = (*objects, NOTHING)
        self.styles = styles

    @torch.no_grad()
    def probabilities(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probability of each class.

        Args:
            pixels: ``(n, 3, 32, 32)`` in [-1, 1].

        Returns:
            ``(n, objects + 1)`` with :data:`NOTHING` last, and ``(n, styles)``.

        Raises:
            ValueError: another shape, or a value that is not finite.
        """
        parts = [self.net(part) for part in _parts(pixels)]
        objects, styles = (torch.cat(logits).softmax(1) for logits in zip(*parts, strict=True))
        return objects, styles

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """Return what both heads read: the activations after the last convolution, averaged over a 2 x 2 grid.

        None is negative, so their cosine lies in [0, 1]. Nothing is subtracted or scaled.

        Args:
            pixels: ``(n, 3, 32, 32)`` in [-1, 1].

        Returns:
            ``(n, 4 * channels of the last stage)``, float32.

        Raises:
            ValueError: another shape, or a value that is not finite.
        """
        return torch.cat([self.net.features(part) for part in _parts(pixels)])

    def judge(self, pixels: Tensor) -> list[EmojiLabels]:
        """Judge the likeliest object and style of each image ``(n, 3, 32, 32)`` in [-1, 1]."""
        objects, styles = (probabilities.max(1) for probabilities in self.probabilities(pixels))
        rows = zip(objects.indices, objects.values, styles.indices, styles.values, strict=True)
        return [EmojiLabels(self.objects[o], float(p), self.styles[s], float(q)) for o, p, s, q in rows]


def _parts(pixels: Tensor) -> tuple[Tensor, ...]:
    if pixels.ndim != 4 or pixels.shape[1:] != (3, 32, 32):
        raise ValueError(f"the scorer takes images of shape (n, 3, 32, 32), not {tuple(pixels.shape)}")
    if not torch.isfinite(pixels).all():
        raise ValueError("the scorer got an image with NaN or infinite values")
    return pixels.float().split(256)


@cache
def load_scorer(folder: Path = SCORER_FOLDER) -> EmojiClassifier:
    """Load the shipped scorer: ``scorer.safetensors`` with the sizes and class names in ``config.json``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    objects, styles = tuple(config["objects"]), tuple(config["styles"])
    net = ScorerNet(tuple(config["channels"]), len(objects), len(styles))
    net.load_state_dict(load_file(folder / "scorer.safetensors"))
    return EmojiClassifier(net, objects, styles)
