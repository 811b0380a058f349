from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_data import ATTACKS, begin, data, fresh, seeded

from publisher.api.diffusion.learner import PromptReader, ShuffledRows


def test_every_row_comes_once_before_one_comes_again() -> None:
    rows = ShuffledRows(5, seeded(0))
    taken = [row for _ in range(5) for row in rows.take(2)]
    assert sorted(taken[:5]) == sorted(taken[5:]) == [0, 1, 2, 3, 4]
    assert taken[:5] != taken[5:]


def test_a_batch_may_be_larger_than_the_set() -> None:
    assert ShuffledRows(1, seeded(0)).take(3) == [0, 0, 0]


def test_there_must_be_something_to_learn_from(folders: dict[str, Path]) -> None:
    attack = ATTACKS["lora"]()
    none = data(attack, attack.Params(), latents=torch.zeros(0, 4, 8, 8), captions=())
    with pytest.raises(ValueError, match="nothing to learn from"):
        begin("lora", fresh(folders["sd"]), said=none)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_texts_are_what_the_pipeline_reads(folders: dict[str, Path], family: str) -> None:
    pipeline, words = fresh(folders[family]), ["a cat emoji", ""]
    expected = (
        pipeline.encode_prompt(words, "cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        if family == "sd"
        else pipeline.encode_prompt(words, do_classifier_free_guidance=False)
    )
    for changing in (False, True):
        text = PromptReader(pipeline, changing=changing)(words)
        torch.testing.assert_close(text.states, expected[0], rtol=1e-5, atol=1e-6)
        if family == "sdxl":
            assert text.pooled is not None
            torch.testing.assert_close(text.pooled, expected[2], rtol=1e-5, atol=1e-6)
        else:
            assert text.pooled is None


@pytest.mark.parametrize(("name", "times"), [("full-finetune", 2), ("textual-inversion", 3)])
def test_captions_are_read_once_unless_reading_is_what_is_learned(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, times: int
) -> None:
    pipeline = fresh(folders["sd"])
    read: list[list[str]] = []
    plain = pipeline.encode_prompt
    monkeypatch.setattr(pipeline, "encode_prompt", lambda texts, **rest: (read.append(texts), plain(texts, **rest))[1])
    learner = begin(name, pipeline)
    for _ in range(3):
        learner.step()
    assert len(read) == times


def test_a_loss_that_is_not_finite_ends_the_trial(folders: dict[str, Path]) -> None:
    attack = ATTACKS["full-finetune"]()
    bad = data(attack, attack.Params(), latents=torch.full((2, 4, 8, 8), torch.inf))
    with pytest.raises(ArithmeticError, match=r"loss is (nan|inf)"):
        begin("full-finetune", fresh(folders["sd"]), said=bad).step()


def test_a_gradient_that_is_not_finite_ends_the_trial_before_it_does_harm(folders: dict[str, Path]) -> None:
    pipeline: Any = fresh(folders["sd"])
    learner = begin("full-finetune", pipeline)
    weight = pipeline.unet.conv_in.weight
    weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(ArithmeticError, match="gradient is nan"):
        learner.step()
    assert weight.isfinite().all()


def test_encoded_texts_carry_no_gradients(folders: dict[str, Path]) -> None:
    learner = begin("textual-inversion", fresh(folders["sd"]))
    assert not learner.encode(["a <new1> emoji"]).states.requires_grad


def test_a_single_image_is_enough(folders: dict[str, Path]) -> None:
    attack = ATTACKS["lora"]()
    one = data(attack, attack.Params(), latents=torch.zeros(1, 4, 8, 8), captions=("a cat emoji",))
    assert begin("lora", fresh(folders["sd"]), said=one, batch=4).step() > 0
