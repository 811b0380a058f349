"""Batches that are drawn side by side are the batches that one thread draws alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from publisher.api import ImageRequest
from publisher.verify.gallery import DrawTask, perform
from publisher_emoji import model_folder
from support.tiny_sdxl import save_tiny_sdxl


def batch(*prompts: str, steps: int = 3) -> tuple[ImageRequest, ...]:
    return tuple(
        ImageRequest(concept="", prompt=prompt, seed=seed, steps=steps, guidance=3.0)
        for seed, prompt in enumerate(prompts)
    )


BATCHES = (batch("a cat emoji", "a dog emoji"), batch("a pizza emoji"), batch("", "a gun emoji"), batch("a tree emoji"))


def images(folder: Path, workers: int, batches: tuple[tuple[ImageRequest, ...], ...] = BATCHES) -> list[torch.Tensor]:
    drawn = perform(DrawTask(folder, "cpu", "float32", workers, batches))
    assert [one.problem for one in drawn] == [""] * len(batches)
    return [one.images for one in drawn if one.images is not None]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_side_by_side_gives_the_bytes_of_one_thread(family: str, tmp_path: Path) -> None:
    folder = model_folder() if family == "sd1" else save_tiny_sdxl(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = images(folder, workers=1)
    torch.set_num_threads(threads)
    for _ in range(3):
        for one, other in zip(alone, images(folder, workers=3), strict=True):
            assert torch.equal(one, other)
    assert torch.get_num_threads() == threads


def test_a_batch_that_crashes_does_not_take_the_others_with_it() -> None:
    mixed = (BATCHES[0], (*batch("a cat emoji", steps=2), *batch("a dog emoji", steps=3)))
    whole, broken = perform(DrawTask(model_folder(), "cpu", "float32", 2, mixed))
    assert whole.images is not None
    assert (broken.images, "a batch needs requests of one number of steps" in broken.problem) == (None, True)


def test_a_model_that_cannot_be_loaded_is_an_answer_for_every_batch(tmp_path: Path) -> None:
    drawn = perform(DrawTask(tmp_path, "cpu", "float32", 2, BATCHES))
    assert [one.images for one in drawn] == [None] * len(BATCHES)
    assert all(one.problem for one in drawn)
