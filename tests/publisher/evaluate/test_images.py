"""Batches that are generated side by side are the batches that one thread generates alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from publisher.api import ImageRequest, ModelInfo
from publisher.evaluate.images import GenerateTask, perform
from publisher.evaluate.permeabilities import ScoreTask, rate
from publisher_emoji import model_folder
from support.anatomies import EMBEDDED, anatomy_of
from support.released_membranes import artifacts, write
from support.tiny_sdxl import save_tiny_sdxl


def batch(*prompts: str, steps: int = 3) -> tuple[ImageRequest, ...]:
    return tuple(
        ImageRequest(concept="", prompt=prompt, seed=seed, steps=steps, guidance=3.0)
        for seed, prompt in enumerate(prompts)
    )


BATCHES = (batch("a cat emoji", "a dog emoji"), batch("a pizza emoji"), batch("", "a gun emoji"), batch("a tree emoji"))


def images(folder: Path, workers: int, membranes: Path | None = None) -> list[torch.Tensor]:
    generated = perform(GenerateTask(folder, anatomy_of(folder), "cpu", "float32", workers, BATCHES, membranes))
    assert [one.problem for one in generated] == [""] * len(BATCHES)
    return [one.images for one in generated if one.images is not None]


@pytest.fixture(scope="module")
def membranes(embedded: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Membranes for two concepts that the embedded model's prompts name."""
    return write(tmp_path_factory.mktemp("release"), artifacts(embedded, ("cat", "tree")))


@pytest.mark.slow
@pytest.mark.usefixtures("two_threads")
def test_membranes_side_by_side_give_the_bytes_of_one_thread(membranes: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = images(model_folder(), 1, membranes)
    torch.set_num_threads(threads)
    for one, other in zip(alone, images(model_folder(), 3, membranes), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
def test_a_prompt_that_opens_no_membrane_is_generated_as_by_the_weights_alone_bit_for_bit(membranes: Path) -> None:
    plain, with_membranes = images(model_folder(), 2), images(model_folder(), 2, membranes)
    same = [[torch.equal(a, b) for a, b in zip(*both, strict=True)] for both in zip(plain, with_membranes, strict=True)]
    assert same == [[False, True], [True], [True, True], [False]]


def test_prompts_are_scored_by_the_pipeline_that_generates(membranes: Path) -> None:
    found = rate(ScoreTask(model_folder(), EMBEDDED, membranes, "cpu", "float32", ("a cat emoji", "a pizza emoji", "")))
    assert (found.concepts, found.problem) == (("cat", "tree"), "")
    assert found.rows == {"a cat emoji": (1.0, 0.0), "a pizza emoji": (0.0, 0.0), "": (0.0, 0.0)}


def test_membranes_that_do_not_fit_are_an_answer_for_every_batch(membranes: Path, tmp_path: Path) -> None:
    folder = save_tiny_sdxl(tmp_path)
    generated = perform(GenerateTask(folder, anatomy_of(folder), "cpu", "float32", 2, BATCHES, membranes))
    assert [one.images for one in generated] == [None] * len(BATCHES)
    assert all("does not fit" in one.problem for one in generated)


def test_a_folder_without_membranes_is_an_answer_and_no_model_without_guards(tmp_path: Path) -> None:
    (generated,) = perform(GenerateTask(model_folder(), EMBEDDED, "cpu", "float32", 1, BATCHES[:1], tmp_path))
    assert (generated.images, "there is no safeguard to attach" in generated.problem) == (None, True)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("family", ["sd1", pytest.param("sdxl", marks=pytest.mark.slow)])
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
    whole, broken = perform(GenerateTask(model_folder(), EMBEDDED, "cpu", "float32", 2, mixed))
    assert whole.images is not None
    assert (broken.images, "a batch needs requests of one number of steps" in broken.problem) == (None, True)


def test_a_model_that_cannot_be_loaded_is_an_answer_for_every_batch(tmp_path: Path) -> None:
    generated = perform(GenerateTask(tmp_path, EMBEDDED, "cpu", "float32", 2, BATCHES))
    assert [one.images for one in generated] == [None] * len(BATCHES)
    assert all(one.problem for one in generated)
