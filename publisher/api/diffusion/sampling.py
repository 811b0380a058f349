"""What takes noisy latents of a model from one noise level to the next, while something is trained or searched for."""

from __future__ import annotations

from publisher.api.diffusion.ddim import Ddim
from publisher.api.diffusion.euler import Euler, sampling_shift
from publisher.api.diffusion.process import process_of
from publisher.api.models import ModelInfo


def sampler_of(model: ModelInfo, steps: int, guidance: float) -> Ddim | Euler:
    """Return DDIM for a model of the process of DDPM, Euler for one of flow matching.

    Args:
        model: its scheduler says which.
        steps: number of noise levels of the grid.
        guidance: guidance scale w.

    Raises:
        ModelError: the noise process is not known, or has fewer timesteps.
    """
    process = process_of(model)
    if process.prediction == "flow":
        return Euler(process.steps, sampling_shift(model), steps, guidance)
    return Ddim(process, steps, guidance)
