"""Membranes on a pipeline: opened by its prompts, in its thread, and taken off without a trace."""

from __future__ import annotations

import copy
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

from publisher.api import ImageRequest
from publisher.api.membranes import Branch, Membrane, MembraneFileError, MembraneIndex, Transport
from publisher.errors import ModelError, UsageError
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import twin
from publisher.safeguards.membranes.attached import attach
from publisher.safeguards.membranes.branches import PromptUnknownError
from publisher.safeguards.membranes.released import Released
from support.attaching import distance, entry, images, members_for, merged

PROMPTS = ["a pizza emoji", "a dog emoji in noto style"]
OVERLAP = Transport(score="overlap")


def test_each_prompt_of_a_batch_is_generated_as_with_weights_merged_for_it_alone(loaded: Any) -> None:
    members = members_for(loaded.unet)
    with attach(loaded, members) as attached:
        gammas = attached.permeabilities(PROMPTS)
        generated = images(loaded, PROMPTS, num_images_per_prompt=2)
    assert len({tuple(row) for row in gammas.tolist()}) == 2
    for i, prompt in enumerate(PROMPTS):
        alone = twin(loaded)
        alone.unet = merged(loaded.unet, members, gammas[i].tolist())
        wanted = images(alone, prompt, num_images_per_prompt=2, seed=2 * i)
        torch.testing.assert_close(generated[2 * i : 2 * i + 2], wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{}, {"guidance_scale": 1.0}, {"negative_prompt": ["cat", "cheese"]}])
def test_a_batch_is_its_single_runs(loaded: Any, options: dict[str, Any]) -> None:
    with attach(loaded, members_for(loaded.unet)):
        together = images(loaded, PROMPTS, **options)
        for i, prompt in enumerate(PROMPTS):
            own = {name: [value[i]] if isinstance(value, list) else value for name, value in options.items()}
            torch.testing.assert_close(together[i : i + 1], images(loaded, [prompt], seed=i, **own), atol=1e-4, rtol=0)


def test_negative_prompts_are_not_scored(loaded: Any) -> None:
    with attach(loaded, members_for(loaded.unet), OVERLAP) as attached:
        images(loaded, "a dog", negative_prompt="a pizza and a cat")
        assert attached.last is not None
        assert attached.last.matrix.tolist() == [[0.0, 0.0]]


def test_a_prompt_that_opens_nothing_gives_the_bases_image_bit_for_bit(loaded: Any) -> None:
    base = images(loaded, PROMPTS)
    with attach(loaded, members_for(loaded.unet), OVERLAP) as attached:
        generated = images(loaded, PROMPTS)
        assert attached.last is not None
        assert attached.last.matrix.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert torch.equal(generated[1], base[1])
    assert not torch.equal(generated[0], base[0])


def test_detaching_restores_everything(loaded: Any) -> None:
    base = images(loaded, PROMPTS)
    kind, attributes = type(loaded), set(vars(loaded))
    attached = attach(loaded, members_for(loaded.unet))
    other = twin(loaded)
    assert not torch.equal(images(loaded, PROMPTS), base)
    attached.detach()
    attached.detach()
    assert (type(loaded), type(other)) == (kind, kind)
    assert set(vars(loaded)) == attributes
    assert torch.equal(images(loaded, PROMPTS), base)
    with pytest.raises(UsageError, match="detached already"):
        attached.serve(other)


def test_an_attachment_that_fails_half_way_leaves_nothing_behind(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, base = type(loaded), images(loaded, PROMPTS)

    def fail(_hook: object) -> None:
        raise RuntimeError("no more hooks")

    monkeypatch.setattr(loaded.unet.up_blocks[1].attentions[0].proj_out, "register_forward_hook", fail, raising=False)
    with pytest.raises(RuntimeError, match="no more hooks"):
        attach(loaded, members_for(loaded.unet))
    monkeypatch.undo()
    assert type(loaded) is kind
    assert torch.equal(images(loaded, PROMPTS), base)
    attach(loaded, members_for(loaded.unet)).detach()


def test_an_exception_in_a_call_closes_the_membranes(loaded: Any) -> None:
    def fail(*_: object) -> dict[str, Any]:
        raise RuntimeError("stop")

    with attach(loaded, members_for(loaded.unet)):
        with pytest.raises(RuntimeError, match="stop"):
            images(loaded, PROMPTS, callback_on_step_end=fail)
        with pytest.raises(PromptUnknownError, match="without prompts"):
            call(loaded.unet)


def call(unet: Any) -> None:
    with torch.no_grad():
        unet(torch.zeros(1, 4, 8, 8), 10, torch.zeros(1, 32, 128))


def test_a_denoiser_that_runs_without_prompts_is_an_error_and_never_uses_old_ones(loaded: Any) -> None:
    with attach(loaded, members_for(loaded.unet)) as attached:
        with pytest.raises(PromptUnknownError, match="without prompts"):
            call(loaded.unet)
        images(loaded, PROMPTS)
        with pytest.raises(PromptUnknownError, match="without prompts"):
            call(loaded.unet)
        with attached.at({"cat": 1.0}), ThreadPoolExecutor(1) as pool:  # another thread has said nothing
            call(loaded.unet)
            assert isinstance(pool.submit(call, loaded.unet).exception(), PromptUnknownError)


@pytest.mark.slow
def test_twins_in_threads_generate_what_one_thread_generates(loaded: Any) -> None:
    prompts = ["a pizza emoji", "a dog", "a cat emoji", "pizza and cat"]
    with attach(loaded, members_for(loaded.unet)) as attached:
        one_by_one = [images(loaded, prompt) for prompt in prompts]
        scores = attached.permeabilities(prompts)

        def generate(prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
            generated = images(twin(loaded), prompt)
            assert attached.last is not None
            return generated, attached.last.matrix

        with ThreadPoolExecutor(4) as pool:
            for i, (generated, matrix) in enumerate(pool.map(generate, prompts)):
                torch.testing.assert_close(generated, one_by_one[i], atol=1e-4, rtol=0)
                torch.testing.assert_close(matrix[0], scores[i])


def test_embeddings_without_words_are_refused_unless_the_strengths_are_given(loaded: Any) -> None:
    with attach(loaded, members_for(loaded.unet)) as attached:
        states, nothing = loaded.encode_prompt(PROMPTS, "cpu", 1, True)  # for a purpose of one's own
        assert attached.last is None
        options = {"prompt_embeds": states, "negative_prompt_embeds": nothing, "num_inference_steps": 1}
        with pytest.raises(PromptUnknownError, match="prompt_embeds without"):
            loaded(**options, output_type="pt")
        with attached.at({"pizza": 1.0}):
            loaded(**options, output_type="pt")


def test_fixed_strengths_hold_for_a_pipelines_call(loaded: Any) -> None:
    members = members_for(loaded.unet)
    with attach(loaded, members) as attached, attached.at(torch.tensor([[0.5, 0.0], [0.0, 1.0]])):
        generated = images(loaded, PROMPTS)
    alone = twin(loaded)
    alone.unet = merged(loaded.unet, members, [0.0, 1.0])
    torch.testing.assert_close(generated[1:], images(alone, PROMPTS[1], seed=1), atol=1e-4, rtol=0)


def test_strengths_that_cannot_be_are_refused(loaded: Any) -> None:
    with attach(loaded, members_for(loaded.unet)) as attached:
        for wrong in ({"dog": 1.0}, torch.ones(2), torch.ones(1, 3), torch.ones(0, 2), {"cat": float("nan")}):
            with pytest.raises(UsageError), attached.at(wrong):
                pass


def test_another_pipeline_on_the_denoiser_has_to_be_served(loaded: Any) -> None:
    other = StableDiffusionImg2ImgPipeline(**loaded.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    options = {"image": torch.zeros(1, 3, 32, 32), "strength": 1.0, "num_inference_steps": 2, "output_type": "pt"}
    with attach(loaded, members_for(loaded.unet)) as attached:
        with pytest.raises(PromptUnknownError, match=r"attached\.serve"):
            other("a cat", **options)
        attached.serve(other)
        other("a cat", **options)
        assert attached.last is not None
        assert attached.last.prompts == ("a cat",)
        with pytest.raises(UsageError, match="has membranes already"):
            attached.serve(other)
    assert type(other) is StableDiffusionImg2ImgPipeline


def test_a_pipeline_with_another_denoiser_is_not_served(loaded: Any) -> None:
    other = twin(loaded)
    other.unet = copy.deepcopy(loaded.unet)
    with attach(loaded, members_for(loaded.unet)) as attached, pytest.raises(ModelError, match="another denoiser"):
        attached.serve(other)


def test_a_pipeline_whose_denoiser_was_exchanged_does_not_generate_without_membranes(loaded: Any) -> None:
    other = copy.deepcopy(loaded.unet)
    with attach(loaded, members_for(loaded.unet)):
        loaded.unet = other
        with pytest.raises(ModelError, match="without these membranes"):
            images(loaded, "a cat")


def test_requests_are_generated_in_inference_mode_and_gradients_flow_afterwards(loaded: Any) -> None:
    request = ImageRequest(concept="cat", prompt="a cat", seed=0, steps=1, guidance=3.0)
    base = generate(loaded, [request])
    with attach(loaded, members_for(loaded.unet)) as attached:
        assert not torch.equal(generate(loaded, [request]), base)
        latents = torch.zeros(1, 4, 8, 8, requires_grad=True)
        with attached.at({"cat": 1.0}):
            loaded.unet(latents, 10, torch.zeros(1, 32, 128)).sample.sum().backward()
        assert latents.grad is not None


def test_the_pipeline_is_saved_under_its_own_name(loaded: Any, tmp_path: Path) -> None:
    with attach(loaded, members_for(loaded.unet)):
        loaded.save_config(tmp_path)
    assert json.loads((tmp_path / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


def test_a_call_can_be_looked_at_and_is_logged(loaded: Any, caplog: pytest.LogCaptureFixture) -> None:
    with (
        attach(loaded, members_for(loaded.unet), OVERLAP) as attached,
        caplog.at_level(logging.INFO, "publisher.membranes"),
    ):
        images(loaded, ["pizza\nhut", "a dog"], num_images_per_prompt=2)
        last = attached.last
    assert last is not None
    assert (last.prompts, last.concepts) == (("pizza\nhut", "a dog"), ("pizza", "cat"))
    assert last.matrix.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert caplog.messages == [
        r"permeability of 'pizza\nhut': pizza 1.000, cat 0.000",
        "permeability of 'a dog': pizza 0.000, cat 0.000",
    ]


def test_a_second_attachment_is_refused(loaded: Any) -> None:
    members = members_for(loaded.unet)
    with attach(loaded, members), pytest.raises(UsageError, match="has membranes already"):
        attach(twin(loaded), members)


def test_membranes_of_another_family_are_refused_before_anything_is_touched(loaded: Any) -> None:
    kind = type(loaded)
    (good, second) = members_for(loaded.unet)
    stem = next(name for name in second[1].branches if name.endswith("attn2_to_k"))
    branch = second[1].branches[stem]
    wide = Branch(torch.zeros(branch.rank, 1024), branch.up, branch.alpha)
    wrong = Membrane({**second[1].branches, stem: wide})
    with pytest.raises(MembraneFileError, match=r"cat\.safetensors.* does not fit"):
        attach(loaded, [good, (second[0], wrong)])
    assert type(loaded) is kind  # the fixture looks for hooks


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"words": (" ",)}, "no words"), ({"texts": ("",)}, "no words"), ({"concept": "cat"}, "two membranes")],
)
def test_membranes_that_no_prompt_could_open_are_refused(loaded: Any, changes: dict[str, Any], what: str) -> None:
    (_, one), second = members_for(loaded.unet)
    with pytest.raises(UsageError, match=what):
        attach(loaded, [(entry("pizza", **changes) if changes.keys() - {"concept"} else entry("cat"), one), second])


def test_nothing_and_merged_membranes_are_not_attached(loaded: Any) -> None:
    with pytest.raises(UsageError, match="no membrane"):
        attach(loaded, [])
    index = MembraneIndex(mode="merge", entries=(entry("cat"),))
    with pytest.raises(UsageError, match="have these membranes already"):
        attach(loaded, Released(index, tuple(members_for(loaded.unet, ("cat",)))))


def test_the_transport_of_a_package_is_used_unless_another_is_given(loaded: Any) -> None:
    members = members_for(loaded.unet, ("cat",))
    released = Released(MembraneIndex(mode="bundle", transport=OVERLAP, entries=(members[0][0],)), tuple(members))
    for given, expected in ((None, 0.0), (Transport(), 0.6)):
        with attach(loaded, released, given) as attached:
            assert float(attached.permeabilities(["a dog"])) >= expected
            assert (float(attached.permeabilities(["a dog"])) > 0) == (given is not None)


def test_other_pipelines_and_unknown_layers_are_refused(loaded: Any) -> None:
    members = members_for(loaded.unet)
    other = twin(loaded)
    other.__class__ = type("KandinskyPipeline", (type(other),), {})
    with pytest.raises(ModelError, match="prompts of a KandinskyPipeline"):
        attach(other, members)
    own = twin(loaded)
    own.unet = copy.deepcopy(loaded.unet)
    own.unet.mid_block.attentions[0].proj_in = torch.nn.Identity()
    with pytest.raises(ModelError, match=r"83 layers .* says 84"):
        attach(own, members)
    own.unet = torch.nn.Linear(1, 1)
    with pytest.raises(ModelError, match="has 0 layers that can carry a membrane"):
        attach(own, members)


def test_images_are_the_same_whatever_the_other_membranes_are_that_stay_shut(loaded: Any) -> None:
    few, many = members_for(loaded.unet, ("pizza",)), members_for(loaded.unet, ("pizza", "cat", "car", "gun"))
    with attach(loaded, few, OVERLAP):
        alone = images(loaded, "a pizza")
    with attach(loaded, many, OVERLAP):
        beside = images(loaded, "a pizza")
    assert distance(beside, alone) < 1e-5
