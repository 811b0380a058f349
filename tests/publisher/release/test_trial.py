"""A model that generates nothing is known before any step has run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api import Executor
from publisher.api.world import R, T
from publisher.errors import ExitCode, PublisherError
from publisher.release.prepare import prepare
from publisher.release.trial import generate_trial
from publisher.runtime import generate as generation
from publisher_emoji import model_folder
from support.releasing import publisher

Manifest = Callable[..., Path]


class Quiet:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        assert (total, text) == (1, "base model")
        self.told.append((stage, done))

    def say(self, text: str) -> None:
        raise AssertionError(text)

    warn = say


def broken(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Return the embedded model with other weights in its denoiser."""
    shutil.copytree(model_folder(), folder)
    (file,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def lose(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["conv_out.weight"]


def spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["conv_out.weight"].fill_(float("nan"))


@pytest.mark.parametrize(
    ("change", "what"),
    [(lose, "lacks 1 tensors that its configuration asks for, such as 'conv_out.weight'"), (spoil, "NaN or infinite")],
    ids=["missing", "NaN"],
)
def test_a_model_that_generates_nothing_stops_before_the_first_step(
    manifest: Manifest, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], Any], what: str
) -> None:
    broken(tmp_path / "model", change)
    path = manifest(model="./model")
    result = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key", "--quiet")
    assert result.exit_code == 2
    assert "the base model generated no image, so nothing could be judged after the steps" in result.stderr
    assert what in " ".join(result.stderr.split())
    assert not list((tmp_path / "out").glob("small*"))
    assert not (tmp_path / "out/.work/steps").exists()


def test_a_trial_image_is_generated_once_and_with_few_steps(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(manifest(), tmp_path / "work", fetch=False)
    generated = []
    generate = generation.generate

    def counted(pipeline: Any, requests: Any) -> torch.Tensor:
        generated.extend(requests)
        return generate(pipeline, requests)

    monkeypatch.setattr("publisher.evaluate.images.generate", counted)
    for _ in range(2):
        quiet = Quiet()
        generate_trial(prepared, tmp_path / "work", quiet)
        assert quiet.told == [("trial image", 0), ("trial image", 1)]
    assert [(request.prompt, request.steps) for request in generated] == [("", 4)]


class Gone(Executor):
    """Its machines cannot be reached."""

    name, version = "gone", "1"

    def map(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        raise ConnectionError("no route")


def test_an_executor_that_fails_is_not_taken_for_the_model(manifest: Manifest, tmp_path: Path) -> None:
    prepared = prepare(manifest(), tmp_path / "work", fetch=False)
    prepared = replace(prepared, tools=replace(prepared.tools, executor=Gone()))
    with pytest.raises(PublisherError, match="the executor 'gone' failed: ConnectionError: no route") as caught:
        generate_trial(prepared, tmp_path / "work", Quiet())
    assert (caught.value.exit_code, caught.value.where) == (ExitCode.UNDECIDED, "evaluate.executor")
