"""Where generating begins when it is not noise alone: pictures that are noised, or latents that another run left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from publisher.api.finds import Begin


@dataclass(frozen=True)
class Start:
    """What n images begin from."""

    begin: Begin
    """How."""
    latents: Tensor
    """Of pictures that get noise, or half-made ones, ``(n, c, h, w)`` float32 on the CPU."""
    mask: Tensor | None = None
    """Latent pixels of a picture that stay as they are, ``(n, 1, h, w)``, 1 or 0; None: none stays."""
    picture: Tensor | None = None
    """Latents of the pictures that ``latents`` were made of, ``(n, c, h, w)``, where these no longer show them."""

    def rows(self, places: Sequence[int]) -> Self:
        """Return some rows, in this order."""
        chosen = list(places)
        mask, picture = (None if one is None else one[chosen] for one in (self.mask, self.picture))
        return type(self)(self.begin, self.latents[chosen], mask, picture)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors by name, as a find keeps them."""
        found = {"latents": self.latents, "mask": self.mask, "picture": self.picture}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @classmethod
    def of(cls, begin: Begin, tensors: Mapping[str, Tensor]) -> Self:
        """Return what :attr:`tensors` gave."""
        return cls(begin, tensors["latents"], tensors.get("mask"), tensors.get("picture"))
