"""More noise in each step: DDPM's own at eta 1, and finite numbers where few steps leave too little variance."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from publisher.api import Begin
from publisher.runtime.generate import GenerateError
from publisher.runtime.louder import louder


def stepped(scheduler: DDIMScheduler, steps: int, place: int, **options: float) -> torch.Tensor:
    scheduler.set_timesteps(steps)
    sample, said = torch.ones(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.5)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    found: torch.Tensor = scheduler.step(
        said, scheduler.timesteps[place], sample, generator=generators, return_dict=False, **options
    )[0]
    return found


def test_eta_1_is_ddpm_and_a_scale_changes_the_noise_alone() -> None:
    plain = DDIMScheduler(clip_sample=False)
    ours = stepped(louder(plain, Begin(eta=1.0)), 50, 20)
    torch.testing.assert_close(ours, stepped(plain, 50, 20, eta=1.0))
    scaled = stepped(louder(plain, Begin(eta=1.0, noise_scale=2.0)), 50, 20)
    silent = stepped(louder(plain, Begin(eta=1e-9)), 50, 20)
    assert not torch.allclose(scaled, ours)
    assert float((silent - stepped(plain, 50, 20)).abs().max()) < 1e-5


def test_more_noise_than_there_is_room_for_gives_numbers() -> None:
    plain = DDIMScheduler(clip_sample=False)
    assert torch.isnan(stepped(plain, 4, 0, eta=1.85)).any()
    assert torch.isfinite(stepped(louder(plain, Begin(eta=1.85)), 4, 0)).all()


def test_flow_matching_adds_no_noise() -> None:
    with pytest.raises(GenerateError, match="flow matching"):
        louder(FlowMatchEulerDiscreteScheduler(), Begin(eta=1.5))
