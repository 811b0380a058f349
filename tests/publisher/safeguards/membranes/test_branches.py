"""The arithmetic: what the denoiser computes with membranes is what it computes with merged weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock

from publisher.safeguards.membranes.attached import attach
from publisher.safeguards.membranes.branches import PromptUnknownError
from support.attaching import distance, members_for, merged

GAMMAS = [[1.0, 0.0], [0.25, 0.5], [0.0, 0.0]]


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def double(pipeline: Any, request: pytest.FixtureRequest) -> Any:
    """The embedded model's UNet in float64, in both layouts of memory."""
    other = copy.copy(pipeline)
    other.unet = copy.deepcopy(pipeline.unet).double().to(memory_format=request.param)
    return other


def batch(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(rows, 4, 8, 8, generator=generator, dtype=torch.float64)
    return latents, torch.randn(rows, 32, 128, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("gradients", [False, True])
def test_every_row_of_a_batch_with_guidance_is_that_of_its_own_merged_model(double: Any, *, gradients: bool) -> None:
    members = members_for(double.unet)
    latents, states = batch(6)
    with torch.set_grad_enabled(gradients), attach(double, members) as attached, attached.at(torch.tensor(GAMMAS)):
        found = double.unet(latents, 10, states).sample.detach()
    for i, gammas in enumerate(GAMMAS):
        with torch.no_grad():
            alone = merged(double.unet, members, gammas)(latents[i::3], 10, states[i::3]).sample
        assert distance(found[i::3], alone) < 1e-6


def test_the_branches_matter_here(double: Any) -> None:
    latents, states = batch(2)
    with torch.no_grad(), attach(double, members_for(double.unet)) as attached:
        with attached.at({"pizza": 1.0}):
            found = double.unet(latents, 10, states).sample
        with attached.at({}):
            base = double.unet(latents, 10, states).sample
    assert distance(found, base) > 0.01


def test_gradients_are_those_of_the_merged_model(double: Any) -> None:
    members = members_for(double.unet)
    latents, states = batch(2)
    found = []
    with attach(double, members) as attached:
        leaf = latents.clone().requires_grad_()
        with attached.at({"pizza": 0.5, "cat": 1.0}):
            double.unet(leaf, 10, states).sample.square().sum().backward()
        found.append(leaf.grad)
    leaf = latents.clone().requires_grad_()
    merged(double.unet, members, [0.5, 1.0])(leaf, 10, states).sample.square().sum().backward()
    assert distance(found[0], leaf.grad) < 1e-6


@pytest.mark.parametrize("gradients", [False, True])
def test_rows_of_permeability_zero_are_the_bases_bit_for_bit(loaded: Any, *, gradients: bool) -> None:
    latents, states = (part.float() for part in batch(4))
    with torch.set_grad_enabled(gradients):
        base = loaded.unet(latents, 10, states).sample
        with attach(loaded, members_for(loaded.unet)) as attached:
            with attached.at(torch.tensor([[0.0, 0.0], [1.0, 0.5]])):
                mixed = loaded.unet(latents, 10, states).sample
            with attached.at({}):
                shut = loaded.unet(latents, 10, states).sample
    assert torch.equal(shut, base)
    assert torch.equal(mixed[[0, 2]], base[[0, 2]])
    assert distance(mixed[[1, 3]], base[[1, 3]]) > 0.01


def test_a_batch_that_is_not_the_prompts_is_refused(loaded: Any) -> None:
    latents, states = (part.float() for part in batch(3))
    with torch.no_grad(), attach(loaded, members_for(loaded.unet)) as attached:
        with (
            attached.at(torch.ones(2, 2)),
            pytest.raises(PromptUnknownError, match="3 rows, the permeabilities are of 2"),
        ):
            loaded.unet(latents, 10, states)
        with attached.at(torch.ones(1, 2)):
            loaded.unet(latents, 10, states)


def test_a_forward_pass_cut_into_other_rows_is_refused(loaded: Any) -> None:
    latents, states = (part.float() for part in batch(4))
    blocks = [part for part in loaded.unet.modules() if isinstance(part, BasicTransformerBlock)]
    for block in blocks:
        block.set_chunk_feed_forward(1, dim=0)
    try:
        with (
            torch.no_grad(),
            attach(loaded, members_for(loaded.unet)) as attached,
            attached.at(torch.ones(2, 2)),
            pytest.raises(PromptUnknownError, match="1 rows"),
        ):
            loaded.unet(latents, 10, states)
    finally:
        for block in blocks:
            block.set_chunk_feed_forward(None, dim=0)


def test_fused_projections_are_refused_rather_than_passed_by(pipeline: Any) -> None:
    own = copy.copy(pipeline)
    own.unet = copy.deepcopy(pipeline.unet)
    latents, states = (part.float() for part in batch(1))
    with torch.no_grad(), attach(own, members_for(own.unet)) as attached, attached.at({"cat": 1.0}):
        own.unet.fuse_qkv_projections()
        with pytest.raises(PromptUnknownError, match="fused"):
            own.unet(latents, 10, states)


def test_half_precision_and_autocast_come_close(pipeline: Any) -> None:
    own = copy.copy(pipeline)
    own.unet = copy.deepcopy(pipeline.unet)
    latents, states = (part.float() for part in batch(2))
    found = []
    with torch.no_grad(), attach(own, members_for(own.unet)) as attached:
        with attached.at({"pizza": 1.0}):
            wanted = own.unet(latents, 10, states).sample
            with torch.autocast("cpu", torch.bfloat16):
                found.append(own.unet(latents, 10, states).sample)
        own.unet.to(torch.bfloat16)  # moved while membranes are attached
        with attached.at({"pizza": 1.0}):
            found.append(own.unet(latents.bfloat16(), 10, states.bfloat16()).sample)
    assert all(distance(one.float(), wanted) < 0.05 for one in found)
