"""Membranes of diffusion transformers: their hosts, the sampler of flow matching, the losses on velocity."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel, SD3Transformer2DModel
from safetensors import safe_open
from test_step import SCOPE, SHORT, run

from publisher.api import Model, ModelInfo, UsageError
from publisher.api.diffusion.euler import Euler, sampling_shift
from publisher.api.membranes import find_hosts, hosts_among, parse_membrane_bytes
from publisher.testing.tiny import open_model
from publisher_membrane_bundle.params import MembraneParams
from publisher_membrane_bundle.step import MembraneBundle
from support.anatomies import anatomy_of
from support.tiny_sd3 import save_tiny_sd3


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return open_model(save_tiny_sd3(tmp_path_factory.mktemp("sd3") / "model", dual=(0,)))


def medium() -> torch.nn.Module:
    """Return Stable Diffusion 3.5 medium's transformer, without weights."""
    sizes = {"num_layers": 24, "num_attention_heads": 24, "attention_head_dim": 64, "caption_projection_dim": 1536}
    network: torch.nn.Module = SD3Transformer2DModel(
        **sizes, joint_attention_dim=4096, qk_norm="rms_norm", dual_attention_layers=tuple(range(13))
    )
    return network


@pytest.mark.parametrize(
    ("make", "family", "count", "parameters"),
    [(medium, "stable-diffusion-3", 337, 1.47), (FluxTransformer2DModel, "flux-1", 418, 4.09)],
)
def test_real_architectures_have_a_branch_on_every_layer_that_is_no_modulation(
    make: Any, family: str, count: int, parameters: float, tiny_family: Callable[[str], Path]
) -> None:
    with torch.device("meta"):
        network = make()
    shapes = {name.removesuffix(".weight"): tuple(weight.shape) for name, weight in network.state_dict().items()}
    hosts = hosts_among(shapes, anatomy_of(tiny_family(family)))
    linear = {
        name
        for name, layer in network.named_modules()
        if isinstance(layer, torch.nn.Linear) and "transformer_blocks" in name and "norm" not in name
    }
    assert {host.module for host in hosts.values()} == linear
    assert len(hosts) == count
    assert sum(sum(host.shape) for host in hosts.values()) / 1e6 == pytest.approx(parameters, abs=0.005)


def test_the_grid_and_the_step_are_those_of_the_models_own_sampler() -> None:
    own, scheduler = Euler(1000, 3.0, 6, 2.0), FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[1 - i / 6 for i in range(6)])
    torch.testing.assert_close(own.sigmas.float(), scheduler.sigmas)
    torch.testing.assert_close(own.timesteps(torch.arange(6)), scheduler.timesteps)
    x, target, uncond = torch.randn(3, 1, 4, 8, 8).unbind()
    for place in range(6):
        wanted = scheduler.step(uncond + 2.0 * (target - uncond), scheduler.timesteps[place], x).prev_sample
        x = own.step(x, torch.tensor([place]), target, uncond)
        torch.testing.assert_close(x, wanted)


def test_a_shift_by_the_size_of_the_image_is_the_samplers(sd3: Model) -> None:
    assert sampling_shift(sd3) == 3.0
    config = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 28, "max_shift": 1.5}
    moved = cast("ModelInfo", SimpleNamespace(anatomy=sd3.anatomy, config=lambda _: config))
    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    mu = 0.5 + (1.5 - 0.5) * (16 - 4) / (28 - 4)  # 8 x 8 latents are 16 tokens
    assert sampling_shift(moved) == pytest.approx(math.exp(mu))
    scheduler.set_timesteps(sigmas=[1 - i / 4 for i in range(4)], mu=mu)
    torch.testing.assert_close(Euler(1000, sampling_shift(moved), 4, 1.0).sigmas.float(), scheduler.sigmas)


def test_it_is_trained_on_velocity_and_its_file_has_the_names_of_diffusers(sd3: Model, tmp_path: Path) -> None:
    ctx = run(sd3, tmp_path, **{**SHORT, "steps": 10, "lr": 1e-2, "lam": 1.0})
    assert ctx.changed() == {}
    numbers = {number.name: number.value for number in ctx.numbers}
    assert 0 < numbers["skull: erase residual"] < 0.95
    path = tmp_path / "skull.safetensors"
    path.write_bytes(ctx.artifacts["membranes/skull.safetensors"])
    with safe_open(path, framework="np") as file:
        names = set(file.keys())
    assert "transformer.transformer_blocks.0.attn2.to_q.lora_A.weight" in names
    assert "transformer.transformer_blocks.0.ff_context.net.0.proj.lora_B.weight" in names
    membrane = parse_membrane_bytes(path.read_bytes(), "skull")
    assert set(membrane.branches) == set(find_hosts(sd3))
    unread = "transformer.transformer_blocks.1.attn.add_q_proj"  # the last block drops what its text asks for
    assert [stem for stem, branch in membrane.branches.items() if not branch.up.any()] == [unread]
    again = run(sd3, tmp_path, {"a": path}, **{"from": {"skull": "a"}, "mode": "merge"})
    assert len(again.tensors) == len(membrane.branches)
    (_, name), changed = next(iter(again.tensors.items()))
    branch = membrane.branches[f"transformer.{name.removesuffix('.weight')}"]
    wanted = sd3.read("transformer", name).double() + branch.scale * branch.up.double() @ branch.down.double()
    torch.testing.assert_close(changed.double(), wanted, rtol=1e-6, atol=1e-7)


def test_the_authors_own_loop_is_refused_for_flow_matching(sd3: Model) -> None:
    params = MembraneParams.parse({**SHORT, "preset": "paper"})
    with pytest.raises(UsageError, match=r"(?s)noise schedule of DDPM.*trainer: pool"):
        MembraneBundle().plan(params, SCOPE, sd3)
    MembraneBundle().plan(params.model_copy(update={"trainer": "pool"}), SCOPE, sd3)


def test_a_transformer_is_not_asked_what_a_prompt_is_about_to_draw(sd3: Model) -> None:
    params = MembraneParams.parse({**SHORT, "transport": {"prediction": {}}})
    with pytest.raises(UsageError, match="asks a U-Net of one text encoder"):
        MembraneBundle().plan(params, SCOPE, sd3)
