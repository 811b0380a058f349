"""DDIM with more noise in each step than DDPM has, as the noise-based probe samples (arXiv 2505.17013).

    x' = sqrt(a') x0 + sqrt(max(0, 1 - a' - (eta s)^2)) eps + scale eta s n,   s^2 = (1 - a') / (1 - a) (1 - a / a')

| here | paper | what |
|---|---|---|
| ``eta`` | eta | 0 is DDIM, 1 is DDPM, the probe takes up to 1.85 |
| ``noise_scale`` | variance scale | beyond what the other terms reckon with, up to 1.04 |

Deviations: where few steps leave less variance than eta asks for, the direction's part is 0 and not NaN. The authors'
scheduler is not in their repository; that the scale multiplies the noise that is added is our reading.
"""

from __future__ import annotations

from typing import Any

from diffusers import DDIMScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from publisher.api import Begin
from publisher.runtime.beginning import samples_flow
from publisher.runtime.generate import GenerateError


class Louder(DDIMScheduler):  # type: ignore[misc]  # diffusers has no types
    """A DDIM scheduler that adds noise of its own accord, whatever it is asked for."""

    begin = Begin()

    def step(
        self, model_output: Tensor, timestep: int, sample: Tensor, generator: Any = None, **options: Any
    ) -> DDIMSchedulerOutput | tuple[Tensor, ...]:
        """Return the sample after a step.

        Args:
            model_output: what the denoiser says, ``(n, c, h, w)``.
            timestep: of the sample.
            sample: ``(n, c, h, w)``.
            generator: random numbers, one for each row, or one for all.
            options: ``return_dict``; all others are ignored.
        """
        x0 = super().step(model_output, timestep, sample).pred_original_sample
        before = timestep - self.config.num_train_timesteps // self.num_inference_steps
        now, then = self.alphas_cumprod[timestep], self.final_alpha_cumprod
        then = self.alphas_cumprod[before] if before >= 0 else then
        spread = self.begin.eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        eps = (sample - now**0.5 * x0) / (1 - now) ** 0.5
        found = then**0.5 * x0 + (1 - then - spread**2).clamp(min=0) ** 0.5 * eps
        noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        found = found + self.begin.noise_scale * spread * noise
        return DDIMSchedulerOutput(found, x0) if options.get("return_dict", True) else (found, x0)


def louder(scheduler: Any, begin: Begin) -> Louder:
    """Return the scheduler that samples the same process with more noise.

    Args:
        scheduler: of a pipeline.
        begin: says how much.

    Raises:
        GenerateError: it samples flow matching, whose steps add no noise.
    """
    if samples_flow(scheduler):
        raise GenerateError("noise is added in steps of DDPM's process, and the model is sampled by flow matching")
    found: Louder = Louder.from_config(scheduler.config)
    found.begin = begin
    return found
