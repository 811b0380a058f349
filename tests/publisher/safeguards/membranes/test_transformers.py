"""Membranes on diffusion transformers: opened by the positive prompts, in whatever forwards the pipeline runs."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from publisher.api.membranes import Transport
from publisher.errors import ModelError
from publisher.runtime.pipelines import load, twin
from publisher.safeguards.membranes.attached import attach
from publisher.safeguards.membranes.branches import PromptUnknownError
from publisher.safeguards.membranes.content import content_mask, content_words
from publisher.safeguards.membranes.transport import overlap, word_forms
from support.anatomies import anatomy_of
from support.attaching import images, members_for, merged
from support.tiny_sd3 import save_tiny_sd3

OVERLAP = Transport(score="overlap", threshold=0.9)
PROMPTS = ["a pizza emoji", "a dog in noto style"]
SHORT = {"max_sequence_length": 16}


@pytest.fixture(scope="module")
def loaded_sd3(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_tiny_sd3(tmp_path_factory.mktemp("sd3") / "model", dual=(0,))
    pipeline = load(folder, anatomy_of(folder), torch.device("cpu"), torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def loaded_flux(tiny_family: Callable[[str], Path]) -> Any:
    folder = tiny_family("flux-1")
    pipeline = load(folder, anatomy_of(folder), torch.device("cpu"), torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("options", [{}, {"true_cfg_scale": 3.0, "negative_prompt": ["a pizza", "a dog"]}])
def test_negative_prompts_that_are_encoded_last_and_run_apart_are_not_heard(
    loaded_flux: Any, options: dict[str, Any]
) -> None:
    flux = twin(loaded_flux)
    options = {**options, "height": 32, "width": 32, "num_images_per_prompt": 2, "max_sequence_length": 16}
    prompts = ["a dog", "a pizza"]
    base = images(flux, prompts, **options)
    told: list[str] = []
    with attach(flux, members(flux), OVERLAP) as attached:
        plain = type(flux).plain_class.encode_prompt
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                type(flux).plain_class, "encode_prompt", lambda *given, **named: _told(told, plain, given, named)
            )
            generated = images(flux, prompts, **options)
        assert attached.last is not None
        assert attached.last.matrix.tolist() == [[0.0, 0.0], [1.0, 0.0]]
    assert torch.equal(generated[:2], base[:2])
    alone = twin(loaded_flux)
    alone.transformer = merged(flux.transformer, members(flux), [1.0, 0.0], flux.anatomy)
    torch.testing.assert_close(generated[2:], images(alone, prompts, **options)[2:], atol=1e-4, rtol=0)
    assert told[-1] == str(options.get("negative_prompt", prompts))


def _told(told: list[str], plain: Any, given: Any, named: dict[str, Any]) -> Any:
    told.append(str(named.get("prompt", given[1:2])))
    return plain(*given, **named)


@pytest.fixture
def sd3(loaded_sd3: Any) -> Any:
    return twin(loaded_sd3)


def members(pipeline: Any, **changes: Any) -> Any:
    return members_for(getattr(pipeline, pipeline.anatomy.denoiser), anatomy=pipeline.anatomy, **changes)


@pytest.mark.parametrize("negative", [None, "a pizza", ["a dog", "a pizza and a cat"]])
def test_an_erased_prompt_opens_and_another_one_gives_the_bases_image_whatever_the_negative_prompt(
    sd3: Any, negative: Any
) -> None:
    options = {"negative_prompt": negative, **SHORT}
    base = images(sd3, PROMPTS, **options)
    with attach(sd3, members(sd3), OVERLAP) as attached:
        generated = images(sd3, PROMPTS, **options)
        assert attached.last is not None
        assert attached.last.matrix.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert torch.equal(generated[1], base[1])
    alone = twin(sd3)
    alone.transformer = merged(sd3.transformer, members(sd3), [1.0, 0.0], sd3.anatomy)
    torch.testing.assert_close(generated[:1], images(alone, PROMPTS, **options)[:1], atol=1e-4, rtol=0)
    assert not torch.equal(generated[0], base[0])
    assert torch.equal(images(sd3, PROMPTS, **options), base)  # detached


def test_every_text_that_an_encoder_reads_can_open(sd3: Any) -> None:
    with attach(sd3, members(sd3), OVERLAP) as attached:
        for name in ("prompt_2", "prompt_3"):
            images(sd3, "a dog", **{name: "a cat"}, **SHORT)
            assert attached.last is not None
            assert (attached.last.prompts, attached.last.matrix.tolist()) == (("a dog | a cat",), [[0.0, 1.0]])
        long = "a dog " * 40 + "with a pizza"  # which CLIP does not read to its end, and T5 does
        images(sd3, "a dog", prompt_3=long)
        assert attached.last.matrix.tolist() == [[1.0, 0.0]]


def test_words_open_in_capitals_and_by_the_cosine_of_their_content(sd3: Any) -> None:
    with attach(sd3, members(sd3), OVERLAP) as attached:
        assert attached.permeabilities(["A Pizza", "PIZZA!", "an emoji"]).tolist() == [[1, 0], [1, 0], [0, 0]]
    with attach(sd3, members(sd3), Transport(score="cosine")) as attached:
        same, other = attached.permeabilities(["pizza", "a dog in noto style"])[:, 0].tolist()
    assert same == pytest.approx(1.0)
    assert other < 0.9
    assert {" pizza", "Pizza", " PIZZA"} < set(word_forms("pizza"))


def test_a_byte_level_vocabulary_knows_a_word_at_the_start_and_after_a_space() -> None:
    from transformers import Qwen2Tokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    merges = [("c", "a"), ("ca", "t"), ("\u0120", "cat"), ("C", "a"), ("Ca", "t")]
    pieces = [*bytes_to_unicode().values(), *(first + second for first, second in merges), "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges)
    prompts = ["cat", "a cat", "Cat on a mat", "A CAT", "a dog"]
    read = [_ids(tokenizer, prompt) for prompt in prompts]
    assert not read[0] & read[1]  # another token after a space
    words = content_words(tokenizer, ("cat",), ())
    *same, other = overlap(read, words).tolist()
    assert same == [1, 1, 1, 1]
    assert other <= 0.5  # the space alone


def _ids(tokenizer: Any, text: str) -> frozenset[int]:
    return frozenset(tokenizer(text, add_special_tokens=False).input_ids)


def test_padding_and_start_tokens_are_no_content(sd3: Any) -> None:
    texts = ["", "a dog"]
    mask = content_mask(sd3.anatomy, sd3, texts, sd3.anatomy.read_text(sd3, texts))
    clip, t5 = sd3.anatomy.text_blocks
    assert mask.shape == (2, clip.rows + t5.rows)
    words = len(sd3.tokenizer("a dog").input_ids) - 1, len(sd3.tokenizer_3("a dog").input_ids)
    assert mask.sum(dim=1).tolist() == [2, sum(words)]
    assert mask[0].nonzero().flatten().tolist() == [1, clip.rows]


def test_embeddings_without_words_are_refused_and_fixed_strengths_hold(sd3: Any) -> None:
    states, _, pooled, _ = sd3.encode_prompt("a dog", None, None, do_classifier_free_guidance=False)
    given = {"prompt_embeds": states, "pooled_prompt_embeds": pooled, "guidance_scale": 1.0, "num_inference_steps": 1}
    with attach(sd3, members(sd3), OVERLAP) as attached:
        with pytest.raises(PromptUnknownError, match="prompt_embeds without"):
            sd3(**given, output_type="latent")
        with attached.at({"pizza": 1.0}):
            sd3(**given, output_type="latent")
        with pytest.raises(PromptUnknownError, match="without prompts"):
            sd3.transformer(torch.zeros(1, 4, 8, 8), states, pooled, torch.ones(1))
        sd3.transformer.fuse_qkv_projections()
        with pytest.raises(ModelError, match="fused"):
            images(sd3, "a dog", **SHORT)
        sd3.transformer.unfuse_qkv_projections()
        images(sd3, "a dog", **SHORT)


def test_a_family_that_does_not_say_how_guidance_is_run_has_all_of_them_open(
    sd3: Any, caplog: pytest.LogCaptureFixture
) -> None:
    sd3.anatomy = dataclasses.replace(sd3.anatomy, halves="")
    base = images(sd3, "a dog", **SHORT)
    with caplog.at_level(logging.WARNING, "publisher.membranes"), attach(sd3, members(sd3), OVERLAP) as attached:
        generated = images(sd3, "a dog", **SHORT)
        assert attached.last is not None
        assert attached.last.matrix.tolist() == [[1.0, 1.0]]
    assert "all membranes are open" in caplog.text
    assert not torch.equal(generated, base)


def test_what_the_program_did_not_load_is_refused(loaded_sd3: Any) -> None:
    other = type(loaded_sd3)(**loaded_sd3.components)
    with pytest.raises(ModelError, match=r"(?s)that this program has loaded.*publisher\.load"):
        attach(other, members(loaded_sd3))
    with pytest.raises(ModelError, match="cannot follow the prompts"):
        attach(_as_kind(loaded_sd3, "OtherPipeline"), members(loaded_sd3))


def _as_kind(pipeline: Any, name: str) -> Any:
    other = twin(pipeline)
    other.__class__ = type(name, (type(other),), {})
    return other


def test_diffusers_reads_what_is_written(sd3: Any, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    from publisher.api.membranes import membrane_bytes, read_membrane, read_sizes, sizes_of

    (_, (entry, membrane)) = members(sd3)
    path = tmp_path / "cat.safetensors"
    path.write_bytes(membrane_bytes(membrane))
    again = read_membrane(path)
    assert (again.prompts, again.rank, list(again.branches)) == (("cat",), 2, sorted(membrane.branches))
    assert read_sizes(path) == sizes_of(membrane)
    assert membrane_bytes(again) == path.read_bytes()
    alone = twin(sd3)
    alone.transformer = merged(sd3.transformer, [(entry, membrane)], [1.0], sd3.anatomy)
    wanted = images(alone, "a dog", **SHORT)
    own = twin(sd3)
    own.transformer = merged(sd3.transformer, [], [], sd3.anatomy)
    own.load_lora_weights(path)
    torch.testing.assert_close(images(own, "a dog", **SHORT), wanted, atol=1e-4, rtol=0)
