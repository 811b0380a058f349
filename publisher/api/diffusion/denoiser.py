"""The frozen denoiser: noisy latents, timesteps and texts to predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from publisher.api.diffusion.text import Text
from publisher.api.families import Anatomy, denoiser_of
from publisher.api.loading import load_component
from publisher.api.models import Model
from publisher.errors import ModelError


class Denoiser:
    """A denoiser in its own dtype; what goes in and what comes out is float32.

    Args:
        network: the frozen denoiser, such as a ``UNet2DConditionModel``.
        anatomy: of its model: says how it is called.

    Raises:
        ModelError: it reads more than latents, timesteps and text.
    """

    def __init__(self, network: Any, anatomy: Anatomy) -> None:
        why_not = anatomy.why_untrainable(network.config)
        if why_not:
            raise ModelError(why_not, where=anatomy.denoiser)
        self.network: nn.Module = network
        self.anatomy = anatomy
        self.channels = anatomy.latents.channels
        """Channels of the latents."""
        self.size = anatomy.latents.size
        """Height and width of the latents."""
        weight = next(network.parameters())
        self.dtype, self.device = weight.dtype, weight.device

    @classmethod
    def load(cls, model: Model, device: torch.device, dtype: torch.dtype) -> Denoiser:
        """Load the model's own denoiser.

        Raises:
            ModelError: it cannot be loaded.
        """
        return cls(load_component(model, model.anatomy.denoiser, device, dtype), model.anatomy)

    @classmethod
    def of(cls, pipeline: Any) -> Denoiser:
        """Return that of a pipeline that the program loaded."""
        return cls(denoiser_of(pipeline), pipeline.anatomy)

    def __call__(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return predictions (epsilon in the paper): noise or velocity, as the model was trained.

        Args:
            x: ``(B, c, h, w)`` latents.
            t: ``(B,)`` timesteps.
            text: B texts.

        Returns:
            ``(B, c, h, w)`` float32.
        """
        return self.anatomy.predict(self.network, x.to(self.dtype), t, text.to(self.dtype)).float()

    def frozen(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return predictions without gradients."""
        with torch.inference_mode():
            prediction = self(x, t, text)
        return prediction.clone()  # outside: a tensor of inference mode could take no part in a loss
