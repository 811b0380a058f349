"""Membranes beside what else changes a denoiser: torch.compile, LoRA, the two encoders of SDXL."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler

from publisher.api.membranes import Transport
from publisher.errors import UsageError
from publisher.runtime.pipelines import load, twin
from publisher.safeguards.membranes.attached import attach
from publisher.safeguards.membranes.branches import PromptUnknownError
from publisher.safeguards.membranes.hosts import live_hosts
from support.anatomies import anatomy_of
from support.attaching import distance, images, members_for, merged
from support.tiny_sdxl import save_tiny_sdxl

OVERLAP = Transport(score="overlap")


@pytest.fixture
def own(pipeline: Any) -> Any:
    """The embedded model with a denoiser that may be changed."""
    other = twin(pipeline)
    other.unet = copy.deepcopy(pipeline.unet).requires_grad_(False)
    return other


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sdxl(tmp_path_factory.mktemp("sdxl"))


@pytest.fixture
def sdxl(sdxl_folder: Path) -> Any:
    return load(sdxl_folder, anatomy_of(sdxl_folder), torch.device("cpu"), torch.float32)


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_a_compiled_denoiser_is_refused(own: Any) -> None:
    members, plain = members_for(own.unet), own.unet
    own.unet = torch.compile(plain, backend="eager")
    with pytest.raises(UsageError, match=r"(?s)compiled.*first, then"):
        attach(own, members)
    own.unet = plain
    own.unet.mid_block.compile(backend="eager")  # a part of it, in place
    with pytest.raises(UsageError, match="compiled"):
        attach(own, members)


@pytest.mark.slow
@pytest.mark.usefixtures("_fresh_dynamo")
def test_attached_then_compiled_follows_the_prompts_and_fails_closed(sdxl: Any) -> None:
    members, plain = members_for(sdxl.unet), sdxl.unet
    more = {"text_embeds": torch.randn(2, 16), "time_ids": torch.ones(2, 6)}
    inputs = torch.randn(2, 4, 8, 8), 10, torch.randn(2, 32, 32)

    def run(unet: Any) -> torch.Tensor:
        found: torch.Tensor = unet(*inputs, added_cond_kwargs=more).sample
        return found

    with torch.no_grad():
        base = run(plain)
        attached = attach(sdxl, members)
        sdxl.unet = torch.compile(plain, backend="eager")
        for strengths in ({"pizza": 1.0, "cat": 0.5}, {}):
            with attached.at(strengths):
                assert distance(run(sdxl.unet), run(plain)) < 1e-5
        with pytest.raises(PromptUnknownError):
            run(sdxl.unet)
        attached.detach()
        assert torch.equal(run(sdxl.unet), base)


@pytest.mark.parametrize("when", ["before", "after"])
def test_lora_loaded_before_or_after_and_membranes_add_up(own: Any, when: str) -> None:
    pytest.importorskip("peft")
    members = members_for(own.unet)
    latents, states = torch.randn(2, 4, 8, 8), torch.randn(2, 32, 128)
    expected_base = copy.deepcopy(own.unet)
    if when == "before":
        add_lora(own.unet)
    with torch.no_grad(), attach(own, members) as attached, attached.at({"pizza": 0.5, "cat": 1.0}):
        if when == "after":
            add_lora(own.unet)
        found = own.unet(latents, 10, states).sample
    with_lora = merged(expected_base, members, [0.5, 1.0])
    add_lora(with_lora)
    with torch.no_grad():
        assert distance(found, with_lora(latents, 10, states).sample) < 1e-5
        assert distance(found, merged(expected_base, members, [0.5, 1.0])(latents, 10, states).sample) > 0.01
    assert not any(layer._forward_hooks for _, layer in live_hosts(own.unet).values())


def add_lora(unet: Any) -> None:
    from peft import LoraConfig

    torch.manual_seed(5)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v", "proj_in"], init_lora_weights=False))


@pytest.mark.parametrize("clip_skip", [None, 1])
def test_sdxl_is_scored_on_the_states_of_both_its_encoders(sdxl: Any, clip_skip: int | None) -> None:
    transport = Transport(score="cosine")
    with attach(sdxl, members_for(sdxl.unet), transport) as attached:
        sdxl(
            ["a pizza", "a dog"], num_inference_steps=1, clip_skip=clip_skip, num_images_per_prompt=2, output_type="pt"
        )
        assert attached.last is not None
        found = attached.last.matrix
        torch.testing.assert_close(found, attached.permeabilities(["a pizza", "a dog"], clip_skip))

        def states(text: str) -> torch.Tensor:
            encoded: torch.Tensor = sdxl.encode_prompt(text, do_classifier_free_guidance=False, clip_skip=clip_skip)[0]
            return encoded.flatten()

        for i, prompt in enumerate(("a pizza", "a dog")):
            for j, concept in enumerate(attached.concepts):
                wanted = torch.cosine_similarity(states(prompt), states(concept), dim=0).clamp(0, 1)
                torch.testing.assert_close(found[i, j], wanted)


def test_clip_skip_changes_the_scores(sdxl: Any) -> None:
    with attach(sdxl, members_for(sdxl.unet)) as attached:
        plain, skipped = attached.permeabilities(["a dog"]), attached.permeabilities(["a dog"], 1)
        assert not torch.equal(plain, skipped)
        assert torch.equal(plain, attached.permeabilities(["a dog"]))


def test_the_second_prompt_of_sdxl_opens_membranes_too(sdxl: Any) -> None:
    base = sdxl("a dog", prompt_2="a cat", num_inference_steps=1, output_type="pt", generator=seeded()).images
    with attach(sdxl, members_for(sdxl.unet), OVERLAP) as attached:
        generated = sdxl("a dog", prompt_2="a cat", num_inference_steps=1, output_type="pt", generator=seeded()).images
        assert attached.last is not None
        assert attached.last.prompts == ("a dog | a cat",)
        assert attached.last.matrix.tolist() == [[0.0, 1.0]]
        again = sdxl("a dog", num_inference_steps=1, output_type="pt", generator=seeded()).images
    assert not torch.equal(generated, base)
    plain = sdxl("a dog", num_inference_steps=1, output_type="pt", generator=seeded()).images
    assert torch.equal(again, plain)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_membranes_of_sdxl_do_not_go_on_sd_1(sdxl: Any, loaded: Any) -> None:
    with pytest.raises(UsageError, match="does not fit this model"):
        attach(loaded, members_for(sdxl.unet))


def changed_after_attaching(pipeline: Any, way: str) -> None:
    """Change a pipeline as people do after loading it."""
    if way == "another scheduler":
        pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    elif way == "slices and tiles":
        pipeline.enable_attention_slicing()
        pipeline.vae.enable_tiling()
    elif way == "FreeU":
        pipeline.enable_freeu(0.9, 0.2, 1.1, 1.2)
    elif way == "bfloat16":
        pipeline.to(torch.bfloat16)
    elif way == "channels last":
        pipeline.unet.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "way",
    [
        *("another scheduler", "slices and tiles", "FreeU", "channels last"),
        pytest.param("bfloat16", marks=pytest.mark.slow),
    ],
)
def test_what_is_changed_after_attaching_leaves_membranes_to_the_prompts(own: Any, way: str) -> None:
    own.vae, own.text_encoder = copy.deepcopy(own.vae), copy.deepcopy(own.text_encoder)
    with attach(own, members_for(own.unet), OVERLAP) as attached:
        changed_after_attaching(own, way)
        for prompts, wanted in ((["a pizza", "a dog"], [1.0, 0.0]), (["a dog"], [0.0])):
            images(own, prompts)
            assert attached.last is not None
            assert attached.last.matrix[:, 0].tolist() == wanted


def test_guidance_that_is_turned_off_half_way_keeps_each_prompt_with_its_image(own: Any) -> None:
    def stop(pipeline: Any, step: int, _: Any, values: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            values["prompt_embeds"] = values["prompt_embeds"].chunk(2)[-1]
            pipeline._guidance_scale = 0.0
        return values

    options = {"callback_on_step_end": stop, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    with attach(own, members_for(own.unet), OVERLAP):
        together = images(own, ["a pizza", "a dog"], **options)
        alone = images(own, ["a dog"], seed=1, **options)
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=0)
