"""A batch through the denoiser: its predictions, its losses, and the frozen denoiser's predictions beside them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from publisher.api.diffusion.text import Text
from publisher_immunize.host import NOTHING, Change, Host
from publisher_immunize.material import Batch, Material
from publisher_immunize.params import ImmunizeParams


@dataclass(frozen=True)
class Bench:
    """What both levels work with."""

    host: Host
    material: Material
    params: ImmunizeParams
    """Every None replaced."""

    def states(self, batch: Batch) -> Tensor:
        """``(N, r n, D)``: the texts as the layers see them, in the working dtype."""
        states = self.material.text(batch.texts).states.to(self.host.denoiser.dtype).to(self.host.work)
        return states.reshape(batch.groups, -1, states.shape[-1])

    def predict(self, batch: Batch, change: Change = NOTHING) -> Tensor:
        """Predictions ``(N r, c, h, w)``; what is added to layers and weights is ``Host.run``'s business."""
        x = self.material.noising.noisy(batch.x, batch.noise, batch.t)
        return self.host.denoiser(x, batch.t, self._text(batch, change))

    def target(self, batch: Batch) -> Tensor:
        """What training calls right, of the same shape."""
        return self.material.noising.target(batch.x, batch.noise, batch.t)

    def losses(self, batch: Batch, change: Change = NOTHING) -> Tensor:
        """The diffusion loss of every row, ``(N, r)``."""
        return rows(self.predict(batch, change) - self.target(batch), batch)

    def frozen(self, batch: Batch) -> Tensor:
        """Predictions of the denoiser as it was."""
        with torch.no_grad():
            predicted: Tensor = self.host.run({}, NOTHING, lambda: self.predict(batch))
        return predicted

    def _text(self, batch: Batch, change: Change) -> Text:
        text = self.material.text(batch.texts)
        if change.words is None:
            return text
        added = change.words[:, None].repeat(1, batch.rows, 1, 1)
        added[:, batch.own :] = 0
        added[:, :, 0] = 0
        return Text(text.states + added.flatten(0, 1), text.pooled)


def rows(difference: Tensor, batch: Batch) -> Tensor:
    """The mean square of every row, ``(N, r)``."""
    return difference.square().mean((1, 2, 3)).reshape(batch.groups, -1)
