"""One trial on a real, very small model, with a learner whose every step can be seen in the images."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from publisher.api import Access, Concept, ImageRequest, Learner, TrainingAttack, TrainingData, TrainingParams
from publisher.api.diffusion.latents import encode_images
from publisher.api.diffusion.text import Text
from publisher.builtin.attacks.adapters import add_lora
from publisher.builtin.attacks.training import AdapterTransplant, FullFinetune, Lora
from publisher.builtin.attacks.training_params import AdapterTransplantParams, LoraParams
from publisher.evaluate.finetune.trials import Trained, TrialTask, TrialTasks, original, perform
from publisher.runtime.generate import generate
from publisher.runtime.pipelines import load
from support.anatomies import anatomy_of
from support.tiny_sdxl import save_tiny_sdxl

CAT = Concept(id="cat", name="cat", prompts=("a cat",), label="cat")
PARAMS = TrainingParams(images=3, evaluation_steps=(0, 1, 3), images_per_evaluation=2, batch=1)
SHORT = TrainingParams(images=3, evaluation_steps=(0, 1), images_per_evaluation=2, batch=1)


class Brighten(Learner):
    """Each step makes every image brighter, by a random amount, and the denoiser worse."""

    def __init__(self, pipeline: Any, generator: torch.Generator) -> None:
        self.pipeline, self.generator = pipeline, generator

    @torch.no_grad()
    def step(self) -> float:
        by = 1 + float(torch.rand((), generator=self.generator))
        self.pipeline.vae.decoder.conv_out.bias += by
        self.pipeline.unet.conv_out.bias += 0.1
        return by

    def encode(self, texts: Sequence[str]) -> Text:
        states, _, pooled, _ = self.pipeline.encode_prompt(list(texts), do_classifier_free_guidance=False)
        return Text(states, pooled)


class Brightener(TrainingAttack[TrainingParams]):
    """Remembers what it was given."""

    name, version, access = "brighten", "1", Access.TRAINING
    training_data: ClassVar[list[TrainingData]] = []

    def learner(self, params: TrainingParams, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        self.training_data.append(data)
        return Brighten(pipeline, generator)


class Broken(Brightener):
    """Fails at its second step."""

    error: ClassVar[Exception] = ArithmeticError("not finite")

    def learner(self, params: TrainingParams, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        learner, error, done = Brighten(pipeline, generator), self.error, []
        whole = learner.step

        def step() -> float:
            done.append(1)
            if len(done) > 1:
                raise error
            return whole()

        learner.step = step  # type: ignore[method-assign]
        return learner


class Idle(Brightener):
    """Never begins."""

    def learner(self, params: TrainingParams, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        raise RuntimeError("no time")


class Begun(Lora):
    """Has learned something before the first step."""

    def choose(self, start: Any) -> Any:
        chosen = super().choose(start)
        with torch.no_grad():
            chosen.weights[-1].fill_(0.01)
        return chosen


class Crashing(Broken):
    error = RuntimeError("out of memory")


class Blinding(Brightener):
    """Puts NaN into the weights and says that all is well."""

    def learner(self, params: TrainingParams, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        learner = Brighten(pipeline, generator)

        def step() -> float:
            with torch.no_grad():
                pipeline.unet.conv_out.bias.fill_(float("nan"))
            return 0.0

        learner.step = step  # type: ignore[method-assign]
        return learner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sdxl(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def task(folder: Path) -> TrialTask:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (7, 3, 32, 32), generator=generator, dtype=torch.uint8)
    requests = tuple(ImageRequest(concept="cat", prompt="a cat", seed=i, steps=2, guidance=2.0) for i in range(2))
    return TrialTask(
        folder,
        anatomy_of(folder),
        "cpu",
        Brightener(),
        PARAMS,
        CAT,
        ("a cat", "one cat"),
        requests,
        pixels[:3],
        pixels[3:5],
        pixels[5:],
        ("a dog", "a fox"),
        7,
    )


def run(*tasks: TrialTask, workers: int = 2) -> list[Trained]:
    return perform(TrialTasks(tasks, workers))


def test_images_are_generated_and_the_loss_is_measured_at_every_evaluation_step(task: TrialTask) -> None:
    (trained,) = run(task)
    assert (trained.steps, trained.crash, trained.problem) == (3, "", "")
    brightness = [float(images.float().mean()) for images in trained.images]
    assert brightness[0] < brightness[1]
    assert brightness[2] == 255
    assert all(images.shape == (2, 3, 32, 32) and images.dtype == torch.uint8 for images in trained.images)
    assert trained.losses[0] < trained.losses[1] < trained.losses[2]
    assert trained.seconds > 0


def test_the_data_has_the_images_as_latents_with_captions_in_turn(task: TrialTask) -> None:
    Brightener.training_data.clear()
    task = replace(task, params=SHORT)
    run(task, replace(task, prior=task.prior[:0], prior_captions=()))
    with_prior, without = Brightener.training_data
    assert with_prior.latents.shape == (3, 4, 8, 8)
    assert with_prior.captions == ("a cat", "one cat", "a cat")
    assert (with_prior.prior_latents.shape, with_prior.prior_captions) == ((2, 4, 8, 8), ("a dog", "a fox"))
    assert without.prior_latents.shape == (0, 4, 8, 8)


def test_a_caption_stays_with_the_image_that_was_generated_by_its_prompt(task: TrialTask) -> None:
    Brightener.training_data.clear()
    # Five images are generated by three prompts in turn; the first two are held out, so the third prompt's comes first.
    run(replace(task, params=SHORT, captions=("a cat", "a red cat", "a blue cat")))
    assert Brightener.training_data[0].captions == ("a blue cat", "a cat", "a red cat")


@pytest.mark.slow
def test_what_runs_beside_a_trial_changes_nothing(task: TrialTask) -> None:
    tasks = [replace(task, seed=seed, params=SHORT) for seed in range(2)]
    together = run(*tasks)
    for alone, beside in zip((run(one)[0] for one in tasks), together, strict=True):
        assert alone.losses == beside.losses
        assert all(torch.equal(*both) for both in zip(alone.images, beside.images, strict=True))


def test_trials_side_by_side_load_their_model_once_and_encode_their_images_once(
    task: TrialTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name, function in (("runtime.pipelines.load", load), ("api.diffusion.latents.encode_images", encode_images)):

        def counted(*args: Any, name: str = name, function: Any = function) -> Any:
            calls.append(name)
            return function(*args)

        monkeypatch.setattr(f"publisher.{name}", counted)
    original.cache_clear()
    run(*(replace(task, attack=Idle(), seed=seed) for seed in range(2)))
    run(replace(task, attack=Idle(), seed=2))
    assert [calls.count(name) for name in sorted(set(calls))] == [3, 1]
    assert original.cache_info().currsize == 1


@pytest.mark.slow
def test_the_seed_decides_and_the_folder_is_left_as_it_was(task: TrialTask, folder: Path) -> None:
    before = (folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    task = replace(task, params=SHORT)
    first, again, other = run(task, task, replace(task, seed=8), workers=3)
    assert torch.equal(first.images[1], again.images[1])
    assert not torch.equal(first.images[1], other.images[1])
    assert torch.equal(first.images[0], other.images[0])
    assert (folder / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("attack", "asked"),
    [
        pytest.param(FullFinetune(), 3, id="full"),
        pytest.param(Lora(), 3, id="adapter"),
        pytest.param(Begun(), 4, id="adapter-that-changes-something"),
    ],
)
def test_before_it_learns_a_model_is_asked_once_unless_something_that_counts_was_added_to_it(
    task: TrialTask, monkeypatch: pytest.MonkeyPatch, attack: TrainingAttack[Any], asked: int
) -> None:
    calls: list[int] = []

    def counted(*args: Any) -> torch.Tensor:
        calls.append(1)
        return generate(*args)

    params = attack.Params(images=3, evaluation_steps=(0, 1), images_per_evaluation=2, batch=1, lr=1e-3)
    tasks = [replace(task, attack=attack, params=params, seed=seed) for seed in (1, 2)]
    original.cache_clear()
    alone = run(tasks[1])[0]
    original.cache_clear()
    monkeypatch.setattr("publisher.evaluate.finetune.trials.generate", counted)
    first, second = run(*tasks)
    assert (len(calls), first.crash) == (asked, "")
    assert second.losses == alone.losses
    assert all(torch.equal(*both) for both in zip(second.images, alone.images, strict=True))
    assert first.losses[1] != second.losses[1]


def test_a_loss_that_is_not_finite_ends_the_trial_and_keeps_the_evaluation_steps_before(task: TrialTask) -> None:
    (trained,) = run(replace(task, attack=Broken()))
    assert (len(trained.images), len(trained.losses), trained.crash) == (2, 2, "")
    assert trained.problem == "after 1 steps: ArithmeticError: not finite"


def test_a_model_that_generates_nan_ends_the_trial_too(task: TrialTask) -> None:
    (trained,) = run(replace(task, attack=Blinding()))
    assert (len(trained.images), trained.problem.startswith("after 1 steps: GenerateError")) == (1, True)


@pytest.mark.slow
def test_crashes_are_answers_and_the_trials_beside_go_on(task: TrialTask, tmp_path: Path) -> None:
    crashed, absent, good = run(replace(task, attack=Crashing()), replace(task, folder=tmp_path), task)
    assert crashed.crash == "after 1 steps: RuntimeError: out of memory"
    assert absent.crash.startswith("ModelError")
    assert good.crash == ""


class Greedy(Brightener):
    """Trains a tensor of the denoiser, frozen or not."""

    def learner(self, params: TrainingParams, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        learner = Brighten(pipeline, generator)

        def step() -> float:
            with torch.no_grad():
                pipeline.unet.conv_out.weight += 0.01
            return 1.0

        learner.step = step  # type: ignore[method-assign]
        return learner


class Adapting(Brightener):
    """Puts adapters on all attention layers, frozen or not."""

    def learner(self, params: TrainingParams, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        add_lora(pipeline, 2, generator)
        return Brighten(pipeline, generator)


def test_an_attack_that_leaves_frozen_tensors_alone_is_measured_and_knows_them(task: TrialTask) -> None:
    Brightener.training_data.clear()
    (trained,) = run(replace(task, params=SHORT, frozen={"conv_in.weight": (), "conv_out.weight": ((0, 1),)}))
    assert (trained.crash, len(trained.losses)) == ("", 2)
    assert Brightener.training_data[0].frozen == {"conv_in.weight": (), "conv_out.weight": ((0, 1),)}


@pytest.mark.slow
def test_what_is_frozen_changes_no_number_before_the_training(task: TrialTask) -> None:
    plain, masked = run(replace(task, params=SHORT), replace(task, params=SHORT, frozen={"conv_in.weight": ()}))
    assert plain.losses == masked.losses
    assert all(torch.equal(*both) for both in zip(plain.images, masked.images, strict=True))


def test_an_attack_that_changes_a_frozen_tensor_does_not_honour_masks(task: TrialTask) -> None:
    (trained,) = run(replace(task, attack=Greedy(), params=SHORT, frozen={"conv_out.weight": ()}))
    assert trained.crash.startswith("the attack 'brighten' does not honour masks: MaskBrokenError")
    assert "conv_out.weight" in trained.crash


@pytest.mark.slow
def test_frozen_rows_are_put_back_after_each_step_and_the_others_learn(task: TrialTask) -> None:
    rows, whole = ({"conv_out.weight": ((0, 1),)}, {"conv_out.weight": ((0, 4),)})
    some, none, free = run(
        *(replace(task, attack=Greedy(), params=SHORT, frozen=frozen) for frozen in (rows, whole, {}))
    )
    assert [trained.crash for trained in (some, none, free)] == ["", "", ""]
    assert none.losses[0] == none.losses[1]
    assert len({some.losses[1], none.losses[1], free.losses[1]}) == 3


@pytest.mark.slow
def test_an_adapter_on_a_frozen_layer_counts_as_a_change(task: TrialTask, folder: Path) -> None:
    with safe_open(folder / "unet" / "diffusion_pytorch_model.safetensors", "pt") as file:
        query = next(name for name in file.keys() if name.endswith("to_q.weight"))  # noqa: SIM118 - not a mapping
    bad, good = run(
        replace(task, attack=Adapting(), params=SHORT, frozen={query: ()}),
        replace(task, attack=Adapting(), params=SHORT, frozen={"conv_in.weight": ()}),
    )
    assert bad.crash.startswith("the attack 'brighten' does not honour masks: MaskBrokenError")
    assert good.crash == ""


def test_a_full_fine_tuning_trains_beside_a_frozen_first_layer(task: TrialTask) -> None:
    """Show the guard's cure: without it torch crashes in the backward pass of the first norm."""
    params = FullFinetune.Params(images=3, evaluation_steps=(0, 2), images_per_evaluation=2, batch=2, lr=1e-3)
    frozen = {"conv_in.weight": (), "conv_in.bias": ()}
    (trained,) = run(replace(task, attack=FullFinetune(), params=params, frozen=frozen))
    assert (trained.crash, trained.losses[0] != trained.losses[1]) == ("", True)


def test_a_mask_of_another_model_is_a_crash(task: TrialTask) -> None:
    (trained,) = run(replace(task, params=SHORT, frozen={"conv_nowhere.weight": ()}))
    assert trained.crash.startswith("NotTheModelError: conv_nowhere.weight")


@pytest.fixture(scope="module")
def other(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with other weights in its denoiser."""
    copied = tmp_path_factory.mktemp("other") / "model"
    shutil.copytree(folder, copied)
    (path,) = (copied / "unet").glob("*.safetensors")
    generator = torch.Generator().manual_seed(5)
    tensors = {name: one + 0.02 * torch.randn(one.shape, generator=generator) for name, one in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return copied


def transplant(task: TrialTask, folder: Path, source: Path, **params: Any) -> Trained:
    chosen = AdapterTransplantParams(images=3, evaluation_steps=(0, 8), images_per_evaluation=2, batch=2, **params)
    (trained,) = run(replace(task, attack=AdapterTransplant(), folder=folder, source=source, params=chosen))
    assert (trained.crash, trained.problem) == ("", "")
    return trained


def test_an_adapter_that_learned_on_the_base_model_is_asked_on_another_model(
    task: TrialTask, folder: Path, other: Path
) -> None:
    here, there = transplant(task, folder, folder, lr=3e-2), transplant(task, other, folder, lr=3e-2)
    own = transplant(task, other, other, lr=3e-2)
    assert here.losses[0] != there.losses[0] == own.losses[0]  # without a step each model is itself
    assert there.losses[1] < there.losses[0]  # what the base model learned helps the other one
    assert there.losses[1] != own.losses[1]  # and is not what the other one would have learned
    lora = LoraParams(lr=3e-2, images=3, evaluation_steps=(0, 8), images_per_evaluation=2, batch=2)
    (plain,) = run(replace(task, attack=Lora(), params=lora))
    assert plain.losses == here.losses
    assert all(map(torch.equal, plain.images, here.images))


def test_an_adapter_that_learned_nothing_brings_nothing(task: TrialTask, folder: Path, other: Path) -> None:
    idle = transplant(task, other, folder, lr=1e-30)  # added to a float32 it changes no bit
    assert idle.losses[0] == idle.losses[1]
    assert torch.equal(*idle.images)
