"""One place reads what a model was trained on, and refuses what it does not know."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Anatomy, ModelError, ModelInfo, TensorInfo, UsageError, cross_attention
from publisher.api.diffusion.process import (
    FLOW_SCHEDULERS,
    SCHEDULERS,
    process_of,
    read_process,
    require_trainable,
)
from publisher.api.families import Timesteps
from support.anatomies import EMBEDDED

Configs = dict[str, dict[str, Any]]


class Configured(ModelInfo):
    """A model that is its configurations alone, and the names of its denoiser's weights."""

    def __init__(self, configs: Configs, names: tuple[str, ...] = (), *, xl: bool = False) -> None:
        self.configs, self.names = configs, names
        self.xl = xl

    @property
    def anatomy(self) -> Anatomy:
        return replace(EMBEDDED, vae_keys=("latents_mean", "latents_std") if self.xl else ())

    @property
    def components(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.configs) - {"model_index"}))

    def config(self, component: str) -> Mapping[str, Any]:
        return self.configs[component]

    def base_files(self, component: str) -> Path:
        raise NotImplementedError(component)

    def tensors(self, component: str) -> Mapping[str, TensorInfo]:
        return {name: TensorInfo(name, (8, 8), "F32", f"{component}/x.safetensors") for name in self.names}


def configs(**changes: dict[str, Any]) -> Configs:
    plain: Configs = {
        "model_index": {"scheduler": ["diffusers", "DDIMScheduler"], "vae": ["diffusers", "AutoencoderKL"]},
        "scheduler": {},
        "unet": {"sample_size": 8, "in_channels": 4, "out_channels": 4, "time_cond_proj_dim": None},
        "vae": {"scaling_factor": 0.5, "shift_factor": None, "latents_mean": None},
    }
    return {name: config | changes.get(name, {}) for name, config in plain.items()}


def scheduled(name: str) -> dict[str, Any]:
    return {"model_index": {"scheduler": ["diffusers", name], "vae": ["diffusers", "AutoencoderKL"]}}


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_the_betas_of_a_bare_configuration_are_the_classs_own(name: str) -> None:
    import diffusers
    from diffusers.utils import is_torchsde_available

    same = {} if is_torchsde_available() else {"DPMSolverSDEScheduler": "KDPM2DiscreteScheduler"}  # by one author
    arguments = inspect.signature(getattr(diffusers, same.get(name, name)).__init__).parameters
    betas = read_process(name, {}).betas
    assert {key: arguments[key].default for key in betas if key in arguments} == {
        key: value for key, value in betas.items() if key in arguments
    }
    assert arguments["prediction_type"].default == "epsilon"


def test_a_process_has_the_cumulated_alphas_of_the_scheduler_that_generates() -> None:
    import diffusers

    from publisher.api.diffusion.latents import Noising

    for name, config in (
        ("TCDScheduler", {}),
        ("LCMScheduler", {}),
        ("EulerDiscreteScheduler", {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 50}),
        ("DDIMScheduler", {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}),
        ("PNDMScheduler", {"trained_betas": [0.1, 0.2, 0.3], "skip_prk_steps": True}),
    ):
        noising = Noising(read_process(name, config))
        scheduler = getattr(diffusers, name)(**config)
        assert torch.equal(noising.scheduler.alphas_cumprod, scheduler.alphas_cumprod), name
        assert noising.steps == len(scheduler.alphas_cumprod)


def test_at_zero_terminal_snr_the_last_timestep_is_noise_alone_and_its_target_the_image() -> None:
    from publisher.api.diffusion.latents import Noising

    noising = Noising(
        read_process("DDIMScheduler", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True})
    )
    x, noise, last = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 5.0), torch.tensor([noising.steps - 1])
    assert torch.equal(noising.noisy(x, noise, last), noise)
    assert torch.equal(noising.target(x, noise, last), -x)


@pytest.mark.parametrize("name", FLOW_SCHEDULERS)
@pytest.mark.parametrize("config", [{}, {"shift": 3.0}, {"shift": 3.0, "num_train_timesteps": 500}])
def test_flow_matching_noises_and_samples_as_its_scheduler(name: str, config: dict[str, Any]) -> None:
    import diffusers

    from publisher.api.diffusion.latents import Noising

    kind = getattr(diffusers, name)
    noising, scheduler = Noising(read_process(name, config)), kind(**config)
    places = torch.arange(1, noising.steps + 1) / noising.steps
    torch.testing.assert_close(noising.at(places), scheduler.timesteps.flip(0))
    generator = torch.Generator().manual_seed(0)
    x, noise = torch.randn(2, 3, 4, 2, 2, generator=generator)
    t = scheduler.timesteps[[0, 7, -1]]
    scaled = [kind(**config).scale_noise(*row) for row in zip(x.split(1), t.split(1), noise.split(1), strict=True)]
    torch.testing.assert_close(noising.noisy(x, noise, t), torch.cat(scaled))
    velocity, sigma = noising.target(x, noise, t), (t / noising.steps)[:, None, None, None]
    torch.testing.assert_close(noising.noisy(x, noise, t) - sigma * velocity, x)  # one Euler step to sigma 0


def test_a_shift_that_depends_on_the_images_size_is_none_of_the_training() -> None:
    config = {"shift": 3.0, "use_dynamic_shifting": True}
    assert read_process("FlowMatchEulerDiscreteScheduler", config).shift == 1.0


@pytest.mark.parametrize(("timesteps", "spread"), [("uniform", 1 / 12**0.5), ("logit-normal", 0.2083)])
def test_noise_levels_of_flow_matching_are_sampled_as_the_family_says(timesteps: Timesteps, spread: float) -> None:
    from publisher.api.diffusion.latents import Noising

    noising = Noising(read_process("FlowMatchEulerDiscreteScheduler", {}), timesteps)
    noise, t = noising.sample(torch.zeros(20_000, 1, 1, 1), torch.Generator().manual_seed(0))
    assert noise.shape == (20_000, 1, 1, 1)
    assert 0 <= t.min() < t.max() <= noising.steps
    assert (t / noising.steps).mean().item() == pytest.approx(0.5, abs=0.01)
    assert (t / noising.steps).std().item() == pytest.approx(spread, abs=0.005)


def test_noise_levels_weigh_in_the_loss_as_in_the_scripts_of_diffusers() -> None:
    from diffusers.training_utils import compute_loss_weighting_for_sd3

    from publisher.api.diffusion.latents import Noising

    noising = Noising(read_process("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}))
    t = torch.tensor([1.0, 250.0, 999.0])
    for ours, theirs in (("none", "none"), ("sigma-sqrt", "sigma_sqrt"), ("cosmap", "cosmap")):
        wanted = compute_loss_weighting_for_sd3(theirs, t / 1000)
        torch.testing.assert_close(noising.weights(t, ours), wanted)  # type: ignore[arg-type]
    x, noise, velocity = torch.randn(3, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    level = (t / 1000)[:, None, None, None]
    of_image = (noising.noisy(x, noise, t) - level * velocity - x).square().mean((1, 2, 3))  # precondition_outputs
    of_velocity = (velocity - noising.target(x, noise, t)).square().mean((1, 2, 3))
    torch.testing.assert_close(noising.weights(t, "image") * of_velocity, of_image, atol=1e-6, rtol=1e-4)


def test_no_other_process_has_weights_of_flow_matching() -> None:
    from publisher.api.diffusion.latents import Noising

    noising = Noising(read_process("DDIMScheduler", {}))
    assert torch.equal(noising.weights(torch.tensor([1, 2]), "none"), torch.ones(2))
    with pytest.raises(UsageError, match="'cosmap' is one of flow matching, and this model predicts epsilon"):
        noising.weights(torch.tensor([1, 2]), "cosmap")


@pytest.mark.parametrize(
    ("name", "config", "what"),
    [
        ("EDMEulerScheduler", {}, "noise process of EDMEulerScheduler is not known"),
        ("FlowMatchLCMScheduler", {}, "noise process of FlowMatchLCMScheduler is not known"),
        ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, "invert_sigmas = True makes another"),
        ("DDIMInventedScheduler", {}, "noise process of DDIMInventedScheduler is not known"),
        ("", {}, "a scheduler without a class"),
        ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas = True makes another"),
        ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type = 'continuous'"),
        ("DDPMScheduler", {"variance_type": "learned_range"}, "variance_type = 'learned_range'"),
        ("DDIMScheduler", {"prediction_type": "sample"}, "predicts 'sample'"),
        ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'"),
        ("HeunDiscreteScheduler", {"beta_schedule": "exp"}, "beta_schedule = 'exp'"),
    ],
)
def test_another_process_is_refused_with_its_reason(name: str, config: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        read_process(name, config)
    assert "do not train work on it" in caught.value.hint


def test_the_index_decides_which_class_it_is() -> None:
    model = Configured(configs(**scheduled("EDMEulerScheduler"), scheduler={"_class_name": "DDIMScheduler"}))
    with pytest.raises(ModelError, match="EDMEulerScheduler"):
        process_of(model)
    del model.configs["model_index"]["scheduler"]
    assert process_of(model).prediction == "epsilon"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        (scheduled("EDMDPMSolverMultistepScheduler"), "EDMDPMSolverMultistepScheduler"),
        ({"unet": {"time_cond_proj_dim": 256}}, r"guidance scale .* \(time_cond_proj_dim = 256\)"),
        ({"unet": {"class_embed_type": "timestep"}}, "class_embed_type"),
        ({"unet": {"encoder_hid_dim": 64}}, "encoder_hid_dim"),
        ({"unet": {"addition_embed_type": "image"}}, "additional embedding"),
        ({"unet": {"out_channels": 8}}, "reads 4 channels and writes 8"),
        (scheduled("FlowMatchEulerDiscreteScheduler"), "says flow, and denoisers of the family stable-diffusion-1"),
        ({"model_index": {"vae": ["diffusers", "AutoencoderTiny"]}}, "the autoencoder is AutoencoderTiny"),
        ({"vae": {"shift_factor": 0.1}}, "has shift_factor, which the model's pipeline does not read"),
        ({"vae": {"latents_mean": [1.0] * 4, "latents_std": [2.0] * 4}}, "has latents_mean and latents_std"),
    ],
)
def test_a_key_that_changes_what_the_network_means_is_refused(changes: Configs, what: str) -> None:
    require_trainable(Configured(configs()), images=True)
    broken = configs(**changes)
    broken["model_index"].setdefault("scheduler", ["diffusers", "DDIMScheduler"])
    with pytest.raises(ModelError, match=what):
        require_trainable(Configured(broken), images=True)


def test_normalised_latents_are_those_of_sdxl_and_a_step_without_images_needs_none() -> None:
    normalised = configs(vae={"latents_mean": [1.0] * 4, "latents_std": [2.0] * 4})
    require_trainable(Configured(normalised, xl=True), images=True)
    require_trainable(Configured(normalised))


def test_images_are_encoded_to_what_the_pipeline_of_sdxl_decodes() -> None:
    from diffusers import AutoencoderKL, AutoencoderTiny

    from publisher.api.diffusion.latents import encode_images

    torch.manual_seed(0)
    mean, std = [-1.5, 2.0, -1.0, 2.5], [8.0, 6.0, 6.5, 5.0]
    vae = AutoencoderKL(
        block_out_channels=(8,), norm_num_groups=4, scaling_factor=0.5, latents_mean=mean, latents_std=std
    )
    latents = encode_images(vae, torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    # As the pipeline writes it: latents * latents_std / scaling_factor + latents_mean.
    undone = latents * torch.tensor(std).view(1, 4, 1, 1) / 0.5 + torch.tensor(mean).view(1, 4, 1, 1)
    with torch.no_grad():
        images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(undone, vae.encode(images * 2 - 1).latent_dist.mean, atol=1e-5)
    with pytest.raises(ModelError, match="AutoencoderTiny"):
        encode_images(
            AutoencoderTiny(
                encoder_block_out_channels=(8,),
                decoder_block_out_channels=(8,),
                num_encoder_blocks=(1,),
                num_decoder_blocks=(1,),
            ),
            images,
        )


def test_cross_attention_is_read_from_the_names_of_the_weights() -> None:
    names = tuple(f"{path}.attn2.to_{part}.weight" for path in ("mid", "down.1", "down.0") for part in "kvq")
    assert cross_attention(Configured(configs(), names)) == ("down.0.attn2", "down.1.attn2", "mid.attn2")
    with pytest.raises(ModelError, match=r"'up\.attn2' has keys or values alone"):
        cross_attention(Configured(configs(), (*names, "up.attn2.to_v.weight")))
    with pytest.raises(ModelError, match="no layer attn2"):
        cross_attention(Configured(configs(), ("mid.attn1.to_k.weight",)))
