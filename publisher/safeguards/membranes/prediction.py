"""What a prompt is about to generate, as the denoiser itself says it: the second way in which a prompt opens membranes.

Words that mean nothing can generate a concept, and no score of words sees that. But at the beginning of sampling the
denoiser sees noise alone, and what it predicts there comes from the prompt:

    d_j(p)       eps(x_j, T, p) - eps(x_j, T, 0), as a unit vector      x_j ~ N(0, I), j = 1..points; T near the end
    like(p, c)   the largest mean over j of d_j(p) . d_j(c), over the concept's texts

The noise is the same for every prompt, so that equal prompts open membranes equally, whatever seed they are sampled
with. All membranes are shut meanwhile. It costs ``points`` rows of the denoiser for each prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from publisher.api.membranes import PredictionGate
from publisher.errors import ModelError

ROWS = 64
"""Rows that the denoiser is given at once at most; at least those of one prompt."""


class PromptPredictor:
    """The directions of prompts, by one denoiser.

    Args:
        rule: which noise, and where.
        denoiser: a U-Net that reads latents, timesteps and text states; it is run with its membranes shut.
        timesteps: number of those that it was trained on.
        shut: keeps its membranes shut in this thread.

    Raises:
        ModelError: it reads more than that.
    """

    def __init__(
        self, rule: PredictionGate, denoiser: Any, timesteps: int, shut: Callable[[], AbstractContextManager[None]]
    ) -> None:
        config = denoiser.config
        if config.addition_embed_type is not None or config.in_channels != config.out_channels:
            raise ModelError(
                "what a prompt is about to generate can be asked of a U-Net that reads latents and text alone",
                where="transport.prediction",
                hint="Leave out 'prediction': the membranes then open by words.",
            )
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        generator = torch.Generator().manual_seed(rule.seed)
        self._noise = torch.randn(rule.points, config.in_channels, height, width, generator=generator)
        self._timestep = round(rule.timestep * (timesteps - 1))
        self._denoiser = denoiser
        self._shut = shut

    def predictions(self, states: Tensor) -> Tensor:
        """Return what the shut denoiser predicts from each noise; equal texts are asked once.

        Args:
            states: text states, ``(n, tokens, width)``.

        Returns:
            ``(n, points, latents)`` float32 on the CPU, without gradient.
        """
        each, again = torch.unique(states, dim=0, return_inverse=True)
        parts = torch.split(each, max(1, ROWS // len(self._noise)))
        return torch.cat([self._predictions(some) for some in parts])[again.cpu()]

    def _predictions(self, states: Tensor) -> Tensor:
        points, denoiser = len(self._noise), self._denoiser
        x = self._noise.to(states.device, denoiser.dtype).repeat(len(states), 1, 1, 1)
        rows = states.to(denoiser.dtype).repeat_interleave(points, dim=0)
        with torch.no_grad(), self._shut():
            found: Tensor = denoiser(x, self._timestep, encoder_hidden_states=rows, return_dict=False)[0]
        return found.float().cpu().reshape(len(states), points, -1)


def directions(predictions: Tensor, empty: Tensor) -> Tensor:
    """Return the unit vectors d: predictions of texts less those of the empty prompt, ``(1, points, latents)``."""
    return F.normalize(predictions - empty, dim=2)


def likeness(prompts: Tensor, concept: Tensor) -> Tensor:
    """Return how much what each prompt predicts is like a concept.

    Args:
        prompts: ``(n, points, latents)`` from :func:`directions`.
        concept: ``(texts, points, latents)``, from there too.

    Returns:
        ``(n,)`` in [0, 1].
    """
    return torch.einsum("npd,tpd->nt", prompts, concept).div(prompts.shape[1]).amax(dim=1).clamp(0, 1)
