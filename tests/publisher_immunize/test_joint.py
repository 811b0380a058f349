"""Joint attention and flow matching: what immunize moves on a model of Stable Diffusion 3, how, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from immunize_cases import SCOPE, SHORT, context, run

from publisher.api import Model, ModelError, cross_attention
from publisher.api.diffusion.denoiser import Denoiser
from publisher.testing.running import StoppedError, StoppingAt
from publisher_immunize.adversary import Adversary
from publisher_immunize.data import gather
from publisher_immunize.denoiser import NOTHING, Denoising, PatchedDenoiser
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.presets import resolve
from publisher_immunize.step import Immunize

JOINT: dict[str, Any] = {"method": "imma", "outer": "attention", "captions": ["name"], "images": 2, "keep_images": 1}
"""What a preset takes on such a model, in small."""


@pytest.fixture(scope="module")
def denoising(model_sd3: Model, tmp_path_factory: pytest.TempPathFactory) -> Denoising:
    """The loaded denoiser with its data, as the step makes them. Do not change it."""
    params = ImmunizeParams.parse({**SHORT, **JOINT, "inner": "lora"})
    ctx = context(model_sd3, tmp_path_factory.mktemp("step"), params)
    host = PatchedDenoiser(Denoiser.load(model_sd3, torch.device("cpu"), torch.float32))
    return Denoising(host, gather(params, SCOPE.concepts, SCOPE.keep, ctx), params)


def test_a_preset_fits_the_structure_of_the_model(model_sd3: Model, model: Model) -> None:
    for preset in ("small", "large", "paper"):
        found, before = (resolve(ImmunizeParams.parse({"preset": preset}), SCOPE, one) for one in (model_sd3, model))
        assert (found.method, found.outer) == ("imma", "attention")
        assert "cross-attention" not in found.inners
        assert found.bound == (None if preset == "paper" else 2.0)
        assert before.bound == (None if preset == "paper" else 1.0)
    assert resolve(ImmunizeParams.parse({"preset": "large"}), SCOPE, model).method == "mima"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"method": "mima"}, "in the family stable-diffusion-3 there are no such ones: keys and values in blocks"),
        ({"outer": "cross-attention-kv"}, "outer cross-attention-kv: the family stable-diffusion-3 has no cross-att"),
        ({"inner": ["lora", "cross-attention"]}, "inner cross-attention: the family stable-diffusion-3 has no"),
        ({"inner": "textual-inversion"}, "has other text encoders than CLIP"),
    ],
)
def test_what_such_a_model_has_not_is_refused_with_what_it_has(
    model_sd3: Model, asked: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        Immunize().plan(ImmunizeParams.parse(asked), SCOPE, model_sd3)
    assert caught.value.hint
    if "method" in asked:
        assert "Set method to imma" in caught.value.hint


def test_every_projection_of_every_attention_is_moved_and_the_entries_are_not(model_sd3: Model, tmp_path: Path) -> None:
    names = Immunize().plan(ImmunizeParams(), SCOPE, model_sd3).changes["transformer"]
    assert {name.split(".")[2] for name in names} == {"attn", "attn2"}
    assert {name.split(".")[3] for name in names if ".attn." in name} == {
        *("to_q", "to_k", "to_v", "to_out"),
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    }
    with pytest.raises(ModelError, match="needs cross-attention"):
        cross_attention(model_sd3)
    ctx = run(model_sd3, tmp_path, **JOINT, inner=["lora", "full"], restart=0)
    assert not any(torch.equal(value, model_sd3.read(*name)) for name, value in ctx.tensors.items())


def test_full_leaves_out_what_no_training_moves(model_sd3: Model) -> None:
    changes = Immunize().plan(ImmunizeParams(outer="denoiser"), SCOPE, model_sd3).changes["transformer"]
    assert set(model_sd3.tensors("transformer")) - set(changes) == {"pos_embed.pos_embed"}


def test_the_losses_are_those_of_the_scripts_of_flow_matching(denoising: Denoising) -> None:
    batch = denoising.data.batch(denoising.data.concepts, "name", (2, 0), torch.Generator().manual_seed(0))
    level = (batch.t / 1000)[:, None, None, None]
    assert 0 < float(level.min()) < float(level.max()) < 1
    text = denoising.data.text(batch.texts)
    (velocity,) = denoising.host.network(  # type: ignore[operator]
        hidden_states=(1 - level) * batch.x + level * batch.noise,
        encoder_hidden_states=text.states,
        pooled_projections=text.pooled,
        timestep=batch.t,
        return_dict=False,
    )
    wanted = (velocity - (batch.noise - batch.x)).square().mean((1, 2, 3)).reshape(2, 2)
    with torch.no_grad():
        assert torch.allclose(denoising.losses(batch), wanted)


def test_noise_levels_are_logit_normal_behind_the_shift_of_the_scheduler(denoising: Denoising) -> None:
    noising = denoising.data.noising
    _, t = noising.sample(torch.zeros(20_000, 1, 1, 1), torch.Generator().manual_seed(0))
    level = t / 1000
    before = level / (3 - 2 * level)  # the shift of 3, undone
    assert before.logit().mean().item() == pytest.approx(0, abs=0.03)
    assert before.logit().std().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_an_adaptation_lowers_the_loss_on_its_batch(denoising: Denoising, kind: str) -> None:
    adversary = Adversary(kind, 2, denoising, torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    batch = denoising.data.batch(denoising.data.concepts, "name", (2, 0), torch.Generator().manual_seed(0))
    losses = [float(loss.mean()) for loss in adversary.learn({}, [batch] * 6)]
    assert losses[-1] < losses[0]
    with torch.no_grad():
        own = adversary.own()
        after = denoising.host.run({}, own, lambda: denoising.losses(batch, own))
        before = denoising.host.run({}, NOTHING, lambda: denoising.losses(batch))
    assert float(after.mean()) < float(before.mean())


def test_adapters_sit_where_those_of_the_usual_scripts_do(denoising: Denoising) -> None:
    host = denoising.host
    assert host.projections
    assert not any(".attn2." in path for path in host.projections)
    assert any(path.endswith("add_k_proj") for path in host.projections)
    assert not host.keys_values


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(model_sd3: Model, tmp_path: Path) -> None:
    data = {**JOINT, "inner": ["lora", "full"], "restart": 0, "steps": 4, "checkpoint_every": 1, "lam": 1.0}
    whole = run(model_sd3, tmp_path / "whole", **data)
    with pytest.raises(StoppedError):
        run(model_sd3, tmp_path / "killed", progress=StoppingAt(3), **data)
    resumed = run(model_sd3, tmp_path / "killed", **data)
    assert all(torch.equal(value, resumed.tensors[name]) for name, value in whole.tensors.items())
    assert resumed.curves == whole.curves
