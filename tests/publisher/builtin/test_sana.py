"""Sana: recognised by structure and scheduler, with an instruction before the text and a norm before the door."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api import Anatomy, ImageRequest, ModelError, TextBlock
from publisher.api.diffusion.latents import encode_images
from publisher.api.diffusion.process import read_process
from publisher.api.families import Configs
from publisher.builtin.sana import Sana
from publisher.model.folder import read_configs
from publisher.runtime.generate import GenerateError, inverted, levels_of
from publisher.runtime.pipelines import load


@pytest.fixture(scope="module")
def folder(tiny_family: Callable[[str], Path]) -> Path:
    return tiny_family("sana")


def changed(folder: Path, change: dict[str, Any]) -> Configs:
    configs: dict[str, Any] = dict(read_configs(folder))
    for place, value in change.items():
        component, key = place.split(".")
        configs[component] = {**configs[component], key: value}
    return configs


def anatomy(configs: Configs) -> Anatomy:
    found = Sana().recognise(configs)
    assert found is not None, Sana().why_not(configs)
    return found


def test_its_parts_are_named(folder: Path) -> None:
    found = anatomy(read_configs(folder))
    assert found.capabilities == {"cross-attention", "text-entry", "training", "membranes"}
    assert (found.text_blocks, found.negative) == ((TextBlock(("text_encoder",), 300, masked=True),), "")
    assert (found.text_fold, len(found.text_entry), found.latents.image_size) == ((), 4, (32, 32))
    large = changed(folder, {"transformer.cross_attention_dim": 2240, "transformer.num_attention_heads": 280})
    assert anatomy(large).entry_width == 2240


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_index._class_name": "SanaSprintPipeline"}, "its pipeline is 'SanaSprintPipeline'"),
        ({"model_index.vae": ["diffusers", "AutoencoderKL"]}, "its vae is 'AutoencoderKL', not AutoencoderDC"),
        (
            {"model_index.text_encoder": ["transformers", "Gemma2ForCausalLM"]},
            "is 'Gemma2ForCausalLM', not Gemma2Model",
        ),
        ({"transformer.guidance_embeds": True}, "guidance scale that it was distilled with"),
        ({"transformer.in_channels": 8}, "reads 8 channels and writes 4, its autoencoder has 4"),
        ({"transformer.cross_attention_dim": 24}, "reads text 24 wide, and text is projected to 16"),
        ({"transformer.patch_size": 3}, "no multiple of its patches of 3"),
        ({"transformer.sample_size": 4}, "images have (16, 16) pixels"),
        ({"transformer.caption_channels": 8}, "reads text 8 wide, its text encoder writes 16"),
        ({"text_encoder.hidden_size": None}, "configurations are malformed"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_structure_is_refused_with_its_reason(change: dict[str, Any], reason: str, folder: Path) -> None:
    configs = changed(folder, change)
    assert Sana().recognise(configs) is None
    assert reason in Sana().why_not(configs)


def test_a_solver_counts_as_flow_matching_only_if_both_keys_say_so(folder: Path) -> None:
    solver = "DPMSolverMultistepScheduler"
    assert anatomy(changed(folder, {"model_index.scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}))
    for change in ({"scheduler.use_flow_sigmas": False}, {"scheduler.prediction_type": "epsilon"}):
        with pytest.raises(ModelError, match=f"the scheduler is {solver}, and models of this family"):
            Sana().recognise(changed(folder, change))
    config = read_configs(folder)["scheduler"]
    process = read_process(solver, config)
    assert (process.prediction, process.steps, process.shift) == ("flow", 1000, 3.0)
    with pytest.raises(ModelError, match="use_dynamic_shifting makes another noise process"):
        read_process(solver, config | {"use_dynamic_shifting": True})


def test_rows_and_tokens_are_counted_alike_and_the_instruction_is_left_out(folder: Path) -> None:
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    (ids,) = pipeline.anatomy.read_ids(pipeline, " A Cat ")
    assert pipeline.tokenizer.decode(ids).endswith(" a cat")
    assert (ids[0], len(ids)) == (pipeline.tokenizer.bos_token_id, 2 + len("a cat"))
    with torch.no_grad():
        text = pipeline.anatomy.read_text(pipeline, [" A Cat "])
    assert text.mask is not None
    assert (text.states.shape, int(text.mask.sum())) == ((1, 300, 16), len(ids))


def test_the_door_reads_what_projection_and_norm_return(folder: Path) -> None:
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    network, rows = pipeline.transformer, torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    found = pipeline.anatomy.enter(rows.double(), lambda name: network.get_parameter(name).detach().double())
    with torch.no_grad():
        wanted = network.caption_norm(network.caption_projection(rows))
    assert torch.allclose(found.float(), wanted, atol=1e-6)


def test_images_are_encoded_as_the_pipeline_decodes_them(folder: Path) -> None:
    """The autoencoder has no spread: its latent, times the factor by which the pipeline divides."""
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = pipeline.vae.encode(image * 2 - 1).latent
    assert torch.allclose(encode_images(pipeline.vae, image) / 0.41, wanted, atol=1e-5)


def test_its_solver_is_known_to_sample_flow_matching_where_sampling_begins_later(folder: Path) -> None:
    pipeline = load(folder, anatomy(read_configs(folder)), torch.device("cpu"), torch.float32)
    asked = [ImageRequest(concept="", prompt="a dog", seed=1, steps=3, guidance=1.0)]
    levels = levels_of(pipeline, asked)
    assert [alpha + sigma for alpha, sigma in levels] == pytest.approx([1.0] * 4)
    assert levels[1][1] == pytest.approx(3 * (2 / 3) / (1 + 2 * (2 / 3)), abs=1e-2)
    with pytest.raises(GenerateError, match="the model is sampled by flow matching"):
        inverted(pipeline, asked, torch.zeros(1, 4, 8, 8))


def test_each_attention_has_its_own_number_of_heads(folder: Path) -> None:
    config = {"num_attention_heads": 70, "num_cross_attention_heads": 20}
    names = [
        f"transformer_blocks.0.{part}.weight" for part in ("attn1.to_k", "attn2.to_q", "attn2.to_v", "ff.conv_point")
    ]
    assert [anatomy(read_configs(folder)).heads(name, config) for name in names] == [70, 20, 20, 0]
