"""A model that generates nothing, or not what a step trains on, is known before any step has run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from publisher.api import Executor, Judgement
from publisher.api.world import R, T
from publisher.errors import ExitCode, PublisherError, UsageError
from publisher.release.prepare import prepare
from publisher.release.trial import HARDLY, LOOKS, generate_trial, require_shown
from publisher.runtime import generate as generation
from publisher.runtime.references import reference_requests
from publisher_emoji import model_folder
from publisher_emoji.plugin import EmojiScorer
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


TREES = [{"id": "cigarette", "prompts": ["a tree emoji", "a tree emoji in blob style"]}]
"""A concept whose own prompts show another thing."""
TRAINED = {
    "robust": {"use": "erase", "with": {"method": "robust", "targets": {"cigarette": "pizza"}}},
    "immunize": {"use": "immunize", "with": {"steps": 1}},
}
"""Steps that train on what the base model generates."""
EVALUATE = {"scorer": "emoji", "sampling": {"steps": 4, "guidance": 3.0, "images": 60}}


class Deaf(Quiet):
    """Hears everything and keeps nothing."""

    def update(self, stage: str, done: int, total: int, text: str = "") -> None:
        pass

    def say(self, text: str) -> None:
        pass


@pytest.mark.parametrize("name", TRAINED)
def test_no_step_is_run_on_images_that_do_not_show_its_concept(name: str, manifest: Manifest, tmp_path: Path) -> None:
    path = manifest(concepts=TREES, steps=[TRAINED[name]], evaluate=EVALUATE)
    result = publisher("release", path, "--out", tmp_path / "out", "--throwaway-key", "--quiet")
    message = " ".join(result.stderr.split())
    assert result.exit_code == 2, message
    assert f"trains on images of 'cigarette' by the base model, and 0 of {LOOKS} show it" in message
    assert not list((tmp_path / "out").glob("small*"))
    assert not (tmp_path / "out/.work/steps").exists()


def test_the_first_references_are_looked_at_unless_the_step_has_run(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(manifest(steps=[TRAINED["immunize"]], evaluate=EVALUATE), tmp_path / "work", fetch=False)
    generated: list[Any] = []
    generate = generation.generate
    monkeypatch.setattr(
        "publisher.evaluate.images.generate", lambda *args: generated.extend(args[1]) or generate(*args)
    )
    finished = replace(prepared, steps=tuple(replace(step, cached=True) for step in prepared.steps))
    require_shown(finished, tmp_path / "work", Deaf())
    assert not generated
    require_shown(prepared, tmp_path / "work", Deaf())
    (concept,) = prepared.resolved.scope.concepts
    wanted = reference_requests(concept, LOOKS, "publisher", 4, 3.0)
    assert [(one.prompt, one.seed) for one in generated] == [(one.prompt, one.seed) for one in wanted]


def said(label: str) -> Judgement:
    return Judgement(labels={"object": label}, scores={"object": 1.0})


UNSURE = Judgement(labels={}, scores={}, unsure=("object",))


@pytest.mark.parametrize(
    "first", [[said("cigarette")] * HARDLY, [UNSURE] * HARDLY, [UNSURE, said("cigarette"), UNSURE]]
)
def test_clearly_fewer_than_half_are_refused_and_unsure_counts_for_the_concept(
    first: list[Judgement], manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(_scorer: Any, images: torch.Tensor) -> list[Judgement]:
        return [*first, *[said("pizza")] * (len(images) - len(first))]

    monkeypatch.setattr(EmojiScorer, "judge", judge)
    prepared = prepare(manifest(steps=[TRAINED["immunize"]], evaluate=EVALUATE), tmp_path / "work", fetch=False)
    if len(first) > HARDLY:
        require_shown(prepared, tmp_path / "work", Deaf())
        return
    with pytest.raises(UsageError, match=f"and {HARDLY} of {LOOKS} show it"):
        require_shown(prepared, tmp_path / "work", Deaf())


def test_a_scorer_that_crashes_ends_the_release_before_a_step(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EmojiScorer, "judge", lambda *_: 1 / 0)
    prepared = prepare(manifest(steps=[TRAINED["immunize"]], evaluate=EVALUATE), tmp_path / "work", fetch=False)
    with pytest.raises(PublisherError, match="the scorer 'emoji' crashed: ZeroDivisionError") as caught:
        require_shown(prepared, tmp_path / "work", Deaf())
    assert caught.value.exit_code == ExitCode.UNDECIDED


def test_a_concept_that_no_scorer_judges_is_left_to_its_checks(manifest: Manifest, tmp_path: Path) -> None:
    prepared = prepare(
        manifest(concepts=TREES, steps=[TRAINED["immunize"]], evaluate=EVALUATE), tmp_path / "work", fetch=False
    )
    require_shown(replace(prepared, tools=replace(prepared.tools, judges={})), tmp_path / "work", Deaf())
    with pytest.raises(UsageError, match=f"0 of {LOOKS} show it"):
        require_shown(prepared, tmp_path / "work", Deaf())
