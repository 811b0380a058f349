"""A battery over schedulers: images are the same twice, and alone as in a batch, whoever samples random numbers."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from publisher.api import ImageRequest
from publisher.api.diffusion.process import SCHEDULERS
from publisher.model.libraries import SCHEDULERS as WITH_LIBRARIES
from publisher.runtime.generate import generate

Case = tuple[str, dict[str, Any]]
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
RANDOM: tuple[Case, ...] = (
    *((name, {}) for name in ("DDPMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler", "SASolverScheduler")),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
)
"""Those that sample random numbers at every step, where an image could take another one's."""
OTHERS: tuple[Case, ...] = (
    *((name, {}) for name in sorted(set(SCHEDULERS) - set(WITH_LIBRARIES) - {name for name, _ in RANDOM[:4]})),
    ("DDIMScheduler", ZERO_SNR),
    ("DDIMScheduler", {"clip_sample": True}),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    ("EDMEulerScheduler", {}),
    ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    ("PNDMScheduler", {"skip_prk_steps": True}),
)
CASES = (RANDOM[0], RANDOM[-1], *(pytest.param(*case, marks=pytest.mark.slow) for case in (*RANDOM[1:-1], *OTHERS)))


@pytest.mark.filterwarnings("ignore")  # of diffusers, about settings that nobody would choose for this model
@pytest.mark.parametrize(("name", "changes"), CASES, ids=lambda value: str(value) if value else "")
def test_images_are_equal_twice_and_alone_as_in_a_batch(loaded: Any, name: str, changes: dict[str, Any]) -> None:
    plain = {key: value for key, value in loaded.scheduler.config.items() if not key.startswith("_")}
    loaded.scheduler = getattr(diffusers, name).from_config(plain | changes)
    asked = [
        ImageRequest(concept="x", prompt=prompt, seed=seed, steps=4, guidance=3.0)
        for seed, prompt in enumerate(("a dog emoji", "a pizza emoji"))
    ]
    together = generate(loaded, asked)
    torch.manual_seed(99)
    assert torch.equal(together, generate(loaded, asked))
    alone = torch.cat([generate(loaded, [request]) for request in asked])
    assert (together.float() - alone.float()).abs().mean() < 0.5
