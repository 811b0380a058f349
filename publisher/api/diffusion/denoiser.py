"""The frozen denoiser: noisy latents, timesteps and texts to predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from publisher.api.diffusion.process import latent_size, require_plain
from publisher.api.diffusion.text import Text
from publisher.api.loading import load_component
from publisher.api.models import Model


class Denoiser:
    """A denoiser in its own dtype; what goes in and what comes out is float32.

    Args:
        network: a ``UNet2DConditionModel``, frozen.
        pixels: pixels a latent, for SDXL's time ids.

    Raises:
        ModelError: it reads more than latents, timesteps and text, or nothing says how large its latents are.
    """

    def __init__(self, network: Any, pixels: int = 8) -> None:
        require_plain(network.config)
        self.network: nn.Module = network
        self.pixels = pixels
        self.channels = int(network.config.in_channels)
        self.size = latent_size(network.config)
        """Height and width of the latents."""
        weight = next(network.parameters())
        self.dtype, self.device = weight.dtype, weight.device

    @classmethod
    def load(cls, model: Model, device: torch.device, dtype: torch.dtype) -> Denoiser:
        """Load the model's own denoiser.

        Raises:
            ModelError: it cannot be loaded.
        """
        blocks = model.config("vae").get("block_out_channels", (0,) * 4) if "vae" in model.components else (0,) * 4
        return cls(load_component(model, model.anatomy.denoiser, device, dtype), 2 ** (len(blocks) - 1))

    def __call__(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return predictions (epsilon in the paper): noise or velocity, as the model was trained.

        Args:
            x: ``(B, c, h, w)`` latents.
            t: ``(B,)`` timesteps.
            text: B texts.

        Returns:
            ``(B, c, h, w)`` float32.
        """
        extra: dict[str, Any] = {}
        if text.pooled is not None:
            size = (x.shape[2] * self.pixels, x.shape[3] * self.pixels)
            ids = torch.tensor([[*size, 0, 0, *size]], dtype=self.dtype, device=self.device)
            pooled = text.pooled.to(self.dtype)
            extra["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": ids.expand(len(x), -1)}
        (out,) = self.network(x.to(self.dtype), t, text.states.to(self.dtype), return_dict=False, **extra)
        prediction: Tensor = out.float()
        return prediction

    def frozen(self, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return predictions without gradients."""
        with torch.inference_mode():
            prediction = self(x, t, text)
        return prediction.clone()  # outside: a tensor of inference mode could take no part in a loss
