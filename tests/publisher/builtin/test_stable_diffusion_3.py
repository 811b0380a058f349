"""Stable Diffusion 3: recognised by its structure, drawn as diffusers draws it, trained by flow matching."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from publisher.api import Anatomy, Concept, ImageRequest, ModelError, TextBlock
from publisher.api.diffusion.denoiser import Denoiser
from publisher.api.diffusion.latents import Noising
from publisher.api.diffusion.learner import freeze_pipeline
from publisher.api.loading import load_pipeline
from publisher.api.training import TrainingData
from publisher.builtin.families import FAMILIES
from publisher.builtin.stable_diffusion_3 import StableDiffusion3
from publisher.model.folder import read_configs
from publisher.registry import load_registry
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from support.tiny_sd3 import save_tiny_sd3

KINDS: dict[str, dict[str, Any]] = {"full": {}, "without T5": {"t5": False}, "two attentions": {"dual": (0,)}}
NO_T5 = {"text_encoder_3": None, "tokenizer_3": None}
CLIP = ["transformers", "CLIPTextModelWithProjection"]


def sd3() -> dict[str, dict[str, Any]]:
    """Return the configurations of Stable Diffusion 3.5 large, as far as they matter."""
    return {
        "model_index": {
            "_class_name": "StableDiffusion3Pipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": CLIP,
            "text_encoder_2": CLIP,
            "text_encoder_3": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "tokenizer_3": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "SD3Transformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "text_encoder": {"hidden_size": 768, "projection_dim": 768},
        "text_encoder_2": {"hidden_size": 1280, "projection_dim": 1280},
        "text_encoder_3": {"d_model": 4096},
        "tokenizer": {"model_max_length": 77},
        "transformer": {
            "in_channels": 16,
            "out_channels": 16,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 2048,
            "sample_size": 128,
        },
        "vae": {"block_out_channels": [128, 256, 512, 512], "latent_channels": 16, "shift_factor": 0.0609},
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return each kind -> a very small model of it."""
    place = tmp_path_factory.mktemp("sd3")
    return {name: save_tiny_sd3(place / name.replace(" ", "-"), **kind) for name, kind in KINDS.items()}


def anatomy(configs: dict[str, dict[str, Any]]) -> Anatomy:
    found = StableDiffusion3().recognise(configs)
    assert found is not None
    return found


def test_its_parts_are_named_and_no_other_family_knows_it() -> None:
    found = anatomy(sd3())
    assert not [family.name for family in FAMILIES if family().recognise(sd3())]
    assert found.capabilities == {"text-entry", "training", "membranes"}
    assert [(part.component, part.width, part.kind) for part in found.text_encoders] == [
        ("text_encoder", 768, "clip"),
        ("text_encoder_2", 1280, "clip"),
        ("text_encoder_3", 4096, "t5"),
    ]
    assert found.text_blocks == (TextBlock(("text_encoder", "text_encoder_2"), 77), TextBlock(("text_encoder_3",), 256))
    assert (found.text_width, found.latents.channels, found.latents.image_size) == (4096, 16, (1024, 1024))
    assert (found.predictions, found.timesteps, found.cross_attention) == (("flow",), "logit-normal", "")


def test_a_model_without_t5_counts_and_its_text_is_not_that_of_clip_alone() -> None:
    configs = sd3()
    configs["model_index"] |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    found = anatomy(configs)
    assert [block.rows for block in found.text_blocks] == [77]
    assert "clip-text" not in found.capabilities


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "FluxPipeline"}, "its pipeline is 'FluxPipeline'"),
        ({"model_index.transformer": ["diffusers", "FluxTransformer2DModel"]}, "its transformer is 'FluxTransformer"),
        ({"model_index.text_encoder_2": [None, None]}, "its text_encoder_2 is None"),
        ({"model_index.text_encoder_3": ["transformers", "UMT5EncoderModel"]}, "'UMT5EncoderModel', not T5"),
        ({"model_index.tokenizer_3": [None, None]}, "it has no tokenizer_3"),
        ({"transformer.in_channels": 33}, "reads 33 channels and writes 16"),
        ({"vae.latent_channels": 4}, "its autoencoder has 4"),
        ({"vae.shift_factor": None}, "no shift_factor"),
        ({"text_encoder_3.d_model": 1024}, "its text_encoder_3 writes 1024"),
        ({"transformer.joint_attention_dim": 1024}, "CLIP text encoders write 2048"),
        ({"transformer.pooled_projection_dim": 768}, "a pooled vector 768 wide, its encoders write 2048"),
        ({"transformer.joint_attention_dim": "wide"}, "configurations are malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_structure_is_refused_with_its_reason(change: dict[str, Any], reason: str) -> None:
    configs = copy.deepcopy(sd3())
    for place, value in change.items():
        component, key = place.split(".")
        configs[component][key] = value
    assert StableDiffusion3().recognise(configs) is None
    assert reason in StableDiffusion3().why_not(configs)


@pytest.mark.parametrize("configs", [{}, {"model_index": {}}, {"model_index": {"_class_name": ["x", "Y"]}}])
def test_configurations_of_nothing_are_refused_not_a_crash(configs: dict[str, Any]) -> None:
    assert StableDiffusion3().recognise(configs) is None
    assert StableDiffusion3().why_not(configs)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "MyScheduler", None])
def test_a_scheduler_of_another_process_is_refused(scheduler: str | None) -> None:
    configs = sd3()
    configs["model_index"]["scheduler"] = ["diffusers", scheduler]
    with pytest.raises(ModelError, match=f"the scheduler is {scheduler or 'missing'}, and models of this family"):
        StableDiffusion3().recognise(configs)


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_bit_for_bit_those_of_plain_diffusers(kind: str, folders: dict[str, Path]) -> None:
    from diffusers import StableDiffusion3Pipeline

    folder, prompts = folders[kind], ["a dog emoji", "a cat emoji"]
    asked = [
        ImageRequest(concept="", prompt=prompt, seed=seed, steps=3, guidance=4.0)
        for seed, prompt in enumerate(prompts, 7)
    ]
    ours = generate(load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32), asked)
    plain = StableDiffusion3Pipeline.from_pretrained(folder, **(NO_T5 if kind == "without T5" else {}))
    plain.set_progress_bar_config(disable=True)
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)])
    given = {"num_inference_steps": 3, "guidance_scale": 4.0, "latents": noise, "height": 32, "width": 32}
    theirs = plain(prompts, **given, output_type="np").images
    assert np.array_equal(ours.permute(0, 2, 3, 1).numpy(), np.round(theirs * 255).astype(np.uint8))
    assert not torch.equal(ours[0], ours[1])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_read_alike_with_and_without_the_denoiser(kind: str, folders: dict[str, Path]) -> None:
    found = anatomy(read_configs(folders[kind]))
    whole, part = (
        load_pipeline(folders[kind], found, torch.float32, without=without) for without in ((), ("transformer", "vae"))
    )
    first, second = (found.read_text(pipeline, ["a dog emoji"]) for pipeline in (whole, part))
    assert torch.equal(first.states, second.states)
    assert first.states.shape == (1, 32 + 256, found.text_width)
    assert bool(first.states[:, 32:].any()) == (kind != "without T5")


def test_a_training_step_descends_on_the_velocity(folders: dict[str, Path]) -> None:
    folder = folders["full"]
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    noising, denoiser = Noising.of(pipeline), Denoiser.of(pipeline)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 4, 8, 8, generator=generator)
    noise, t = noising.sample(x, generator)
    with torch.no_grad():
        text = pipeline.anatomy.read_text(pipeline, ["a dog emoji"] * 4)
    level = (t / 1000)[:, None, None, None]
    (velocity,) = pipeline.transformer(
        hidden_states=(1 - level) * x + level * noise,
        encoder_hidden_states=text.states,
        pooled_projections=text.pooled,
        timestep=t,
        return_dict=False,
    )
    before = noising.loss(denoiser, x, text, noise, t).mean()
    assert torch.allclose(before, (velocity - (noise - x)).square().mean())
    optimizer = torch.optim.SGD(pipeline.transformer.parameters(), lr=1e-2)
    before.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert noising.loss(denoiser, x, text, noise, t).mean() < before


def test_what_it_learns_has_the_sign_that_its_sampler_reads(folders: dict[str, Path]) -> None:
    folder = folders["full"]
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    noising, (x, noise) = Noising.of(pipeline), torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pipeline.scheduler.set_timesteps(5)
    start = pipeline.scheduler.timesteps[0][None]
    now = noising.noisy(x, noise, start)
    for t in pipeline.scheduler.timesteps:
        now = pipeline.scheduler.step(noising.target(x, noise, t[None]), t, now, return_dict=False)[0]
    assert torch.allclose(now, x, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "given", "moved"),
    [
        ("full-finetune", {}, {"transformer"}),
        ("dreambooth", {"prior_weight": 0}, {"transformer"}),
        (
            "dreambooth",
            {"prior_weight": 0, "text_encoder": True},
            {"text_encoder", "text_encoder_2", "text_encoder_3", "transformer"},
        ),
        ("lora", {"rank": 2}, {"lora"}),
        ("dreambooth-lora", {"rank": 2, "prior_weight": 0}, {"lora"}),
    ],
)
def test_an_attack_by_training_moves_what_it_says(
    name: str, given: dict[str, Any], moved: set[str], folders: dict[str, Path]
) -> None:
    """Adapters sit on joint attention alone, not on the image's second one."""
    folder = folders["two attentions"]
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    freeze_pipeline(pipeline)
    attack = load_registry().get("attack", name).make()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    dog = Concept(id="dog", name="dog", prompts=("a dog emoji",), label="dog")
    data = TrainingData(latents, ("a dog emoji",) * 2, latents[:0], (), dog)
    learner = attack.learner(attack.Params(batch=2, lr=1e-2, **given), pipeline, data, generator)
    parts = {"transformer": pipeline.transformer} | {
        part.component: getattr(pipeline, part.component) for part in pipeline.anatomy.text_encoders
    }
    weights = {f"{part}.{key}": w for part, network in parts.items() for key, w in network.named_parameters()}
    before = {key: weight.detach().clone() for key, weight in weights.items()}
    learner.step()
    changed = {key for key, weight in weights.items() if not torch.equal(weight, before[key])}
    assert {"lora" if ".lora_" in key else key.partition(".")[0] for key in changed} == moved
    assert moved != {"lora"} or {".attn." in key for key in changed} == {True}
