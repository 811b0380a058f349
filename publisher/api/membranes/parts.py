"""A membrane in memory: hosts, branches, and the whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from publisher.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "lora_unet_"
"""Beginning of a stem of a U-Net, as kohya has it."""
TRANSFORMER = "transformer."
"""Beginning of a stem of a diffusion transformer, as diffusers has it."""


@dataclass(frozen=True)
class Host:
    """A layer that carries a branch, from the header of its weight."""

    module: str
    """Path of the module in the denoiser, ``"mid_block.attentions.0.proj_in"``."""
    shape: tuple[int, ...]
    """Of its weight: ``(m, n)``, or ``(m, n, 1, 1)``."""
    denoiser: str = "unet"
    """Folder of the denoiser: it decides on the names in files."""

    @property
    def stem(self) -> str:
        """Its name in a membrane file."""
        return stem_of(self.module, self.denoiser)


def stem_of(module: str, denoiser: str) -> str:
    """Return the name of a layer in a membrane file: kohya's for a U-Net, that of diffusers for a transformer.

    Args:
        module: path of the layer in the denoiser.
        denoiser: its folder.
    """
    return PREFIX + module.replace(".", "_") if denoiser == "unet" else f"{TRANSFORMER}{module}"


@dataclass(frozen=True)
class Branch:
    """The side branch of one host, convolutions flattened."""

    down: Tensor
    """``(r, n)``."""
    up: Tensor
    """``(m, r)``."""
    alpha: float
    conv: bool = False
    """The host is a 1x1 convolution: the file has two further dimensions of 1."""

    @property
    def rank(self) -> int:
        """R."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """Alpha / r."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class Membrane:
    """One membrane file: all branches of one concept (or of several that were trained as one)."""

    branches: Mapping[str, Branch]
    """Stem -> branch, sorted."""
    prompts: tuple[str, ...] = ()
    """What it erases, in words; empty where the file does not say, and then it cannot open by the prompt."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Everything else that the file says about itself."""

    @property
    def rank(self) -> int:
        """The largest of all branches."""
        return max(branch.rank for branch in self.branches.values())

    @property
    def parameters(self) -> int:
        """Elements of all factors."""
        return sum(branch.down.numel() + branch.up.numel() for branch in self.branches.values())


class MembraneFileError(ModelError):
    """A membrane file is malformed, or does not fit the model."""
