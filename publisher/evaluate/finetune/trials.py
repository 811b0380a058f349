"""Trials of attacks by training: a model is loaded, trained, and asked at each evaluation step, wherever it runs."""

from __future__ import annotations

import copy
import hashlib
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import (
    Anatomy,
    Concept,
    Frozen,
    ImageRequest,
    Learner,
    TrainingAttack,
    TrainingData,
    TrainingParams,
    denoiser_of,
)
from publisher.errors import CRASHES
from publisher.evaluate.context import Unmeasured
from publisher.evaluate.requests import one_line
from publisher.model.digest import seed_of
from publisher.runtime.generate import GenerateError, batch_kind, batch_size, generate
from publisher.runtime.meter import advance
from publisher.runtime.pipelines import lay_out_to_train
from publisher.runtime.side_by_side import one_thread_each, threads_of

if TYPE_CHECKING:
    import torch

    from publisher.safeguards.freeze_mask.guard.arming import Armed

VERSION = "5"
"""Raised when the same trial gives other numbers."""
ADAPTER = ".lora_A.", ".lora_B."
"""In the names of an adapter's two matrices, as peft gives them."""
FIRST_STEP = threading.Lock()
"""Held by a trial for its first training step. Where two threads made the first backward pass of a process at once, its
gradients had other last bits in 3 of 89 processes, and in 0 of 63 where one came after the other."""
TIMESTEPS = 8
"""Number of timesteps, spread evenly, at which the loss on each held-out image is measured."""


@dataclass(frozen=True, eq=False)
class TrialTask:
    """One trial of one model: all that an executor has to send."""

    folder: Path
    """Folder of the model that is trained."""
    anatomy: Anatomy
    """Parts of the model."""
    device: str
    attack: TrainingAttack[Any]
    params: TrainingParams
    concept: Concept
    captions: tuple[str, ...]
    """Written under the images in turn."""
    requests: tuple[ImageRequest, ...]
    """Generated after each evaluation step."""
    images: torch.Tensor
    """``(n, 3, h, w)`` uint8: what is trained on."""
    held_out: torch.Tensor
    """The same, of images that are never trained on."""
    prior: torch.Tensor
    """The same, of other things; may be empty."""
    prior_captions: tuple[str, ...]
    seed: int
    """Seed of the learner's random numbers: the same for all models."""
    frozen: Frozen = field(default_factory=dict)
    """Parts of the denoiser that the attacker leaves as they are."""
    source: Path | None = None
    """Folder of the base model, where that is trained and what it learned is carried over; None: it is not."""


@dataclass(frozen=True)
class TrialTasks:
    """Trials that run together."""

    trials: tuple[TrialTask, ...]
    workers: int
    """Number of trials at the same time, each by one processor thread; 1: one by all threads."""

    @property
    def device(self) -> str:
        """Kind of device that the trials need."""
        return self.trials[0].device

    @property
    def threads(self) -> int:
        """Processor threads that the task keeps busy."""
        return threads_of(self.device, self.workers)


@dataclass
class Trained:
    """What became of a trial, evaluation step by evaluation step."""

    images: list[torch.Tensor] = field(default_factory=list)
    """``(n, 3, h, w)`` uint8 on the CPU, one for each evaluation step that was reached."""
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """Seconds of all training steps together."""
    steps: int = 0
    problem: str = ""
    """The training lost its numbers: why, and when."""
    crash: str = ""
    """Reason why nothing can be said of this trial; empty: there is none."""


def perform(tasks: TrialTasks) -> list[Trained]:
    """Run trials. A crash is an answer, not an exception.

    Models are loaded and adapters added one after the other: libraries patch torch while they do it. A small model, of
    which trials run side by side, stays loaded for the next ones, which begin from copies.
    """
    if tasks.workers == 1:
        return [_run(_begin(task, _Original)) for task in tasks.trials]
    begun = one_thread_each(lambda task: _begin(task, original), tasks.trials, 1)
    return one_thread_each(_run, begun, tasks.workers)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What a model under training generates at an evaluation step, and its loss."""

    images: torch.Tensor
    """``(n, 3, h, w)`` uint8 on the CPU."""
    loss: float


class _Original:
    """A model as it lies in its folder, and the latents of images by it.

    Args:
        folder: of the model.
        anatomy: of the model.
        device: kind of device that it is trained on.
        kept: trials get copies of the pipeline; False: there is one trial, which gets the pipeline itself.
    """

    def __init__(self, folder: Path, anatomy: Anatomy, device: str, *, kept: bool = False) -> None:
        self._folder, self._anatomy, self._device, self._kept = folder, anatomy, device, kept
        self._encoded: dict[str, torch.Tensor] = {}
        self._untrained: dict[Hashable, Evaluated] = {}
        self._locks: dict[Hashable, threading.Lock] = {}

    @cached_property
    def _loaded(self) -> Any:
        import torch

        from publisher.runtime.pipelines import load

        return load(self._folder, self._anatomy, torch.device(self._device), torch.float32)

    def pipeline(self) -> Any:
        """Return a pipeline to train, in float32."""
        return copy.deepcopy(self._loaded) if self._kept else self._loaded

    def latents(self, images: torch.Tensor) -> torch.Tensor:
        """Return the latents of ``(n, 3, h, w)`` uint8, ``(n, c, h / f, w / f)``; equal images are encoded once."""
        from publisher.api.diffusion.latents import encode_images

        if not len(images):
            return _none(self._loaded)
        key = _digest(images)
        if key in self._encoded:
            advance(len(images))
        else:
            self._encoded[key] = encode_images(self._loaded.vae, images.float().div(255), advance)
        return self._encoded[key].clone()

    def is_in(self, pipeline: Any) -> bool:
        """Return whether a trial's networks compute what the model does: by its tensors, and nothing that counts."""
        import torch

        if not self._kept:
            return False

        def tensors(part: Any) -> dict[str, torch.Tensor]:
            return dict(part.state_dict()) if isinstance(part, torch.nn.Module) else {}

        for name, part in pipeline.components.items():
            if not _computes_the_same(tensors(part), tensors(self._loaded.components[name])):
                return False
        return True

    def evaluated(self, task: TrialTask, evaluate: Callable[[], Evaluated]) -> Evaluated:
        """Return what a trial finds before its first training step; trials that ask the same find it once.

        Args:
            task: the trial, whose learner has left the model as it is.
            evaluate: asks the model, where no other trial has.
        """
        asked = (task.concept.model_dump_json(), task.captions, task.requests, _digest(task.held_out))
        key = (task.attack.name, task.params.model_dump_json(), *asked)
        with self._locks.setdefault(key, threading.Lock()):
            if key in self._untrained:
                advance(len(task.requests))
            else:
                self._untrained[key] = evaluate()
            return self._untrained[key]


def _computes_the_same(now: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a network's tensors are what they were, beside adapters of peft that add B A x with B = 0."""
    import torch

    adapters = {name: value for name, value in now.items() if any(part in name for part in ADAPTER)}
    own = {name.replace(".base_layer.", "."): value for name, value in now.items() if name not in adapters}
    if own.keys() != before.keys() or not all(torch.equal(own[name], before[name]) for name in own):
        return False
    return not any(
        value.any() if ADAPTER[1] in name else not value.isfinite().all() for name, value in adapters.items()
    )


def _digest(images: torch.Tensor) -> str:
    return hashlib.sha256(f"{tuple(images.shape)}".encode() + images.contiguous().numpy().tobytes()).hexdigest()


@lru_cache(maxsize=2)
def original(folder: Path, anatomy: Anatomy, device: str) -> _Original:
    """Return the model that trials begin from. The last two stay loaded until the cache is cleared."""
    return _Original(folder, anatomy, device, kept=True)


@dataclass(frozen=True, eq=False)
class _Begun:
    """A trial that is ready to train, or why it is not."""

    task: TrialTask
    pipeline: Any = None
    learner: Learner | None = None
    asked: Learner | None = None
    """Reads prompts as the attacked model does: the learner, unless that trains the base model."""
    source: Any = None
    """The base model's pipeline, where that is trained; None: the attacked model is."""
    held_out: torch.Tensor | None = None
    """Latents of the held-out images, ``(n, c, h, w)``."""
    armed: Armed | None = None
    """The frozen parts and what keeps them; None: nothing is frozen."""
    untrained: _Original | None = None
    """The model, where learning begins with it as it is, or with adapters that change nothing yet; None: something was
    added to it, or nobody knows."""
    crash: str = ""


def _begin(task: TrialTask, model: Callable[[Path, Anatomy, str], _Original]) -> _Begun:
    from publisher.api.diffusion.learner import DenoisingLearner

    try:
        untrained = model(task.folder, task.anatomy, task.device)
        pipeline, data = untrained.pipeline(), _data(task, untrained)
        held_out = untrained.latents(task.held_out)
        armed = _arm(denoiser_of(pipeline), task)
        asked = learner = _learner(task, pipeline, data)
        source = None
        if task.source:
            base = model(task.source, task.anatomy, task.device)
            source = base.pipeline()
            learner = _learner(task, source, _data(task, base))
        _look(armed, task, adapters_alone=True)
        as_it_is = type(asked) is DenoisingLearner and untrained.is_in(pipeline)
        return _Begun(task, pipeline, learner, asked, source, held_out, armed, untrained if as_it_is else None)
    except Unmeasured as error:
        return _Begun(task, crash=str(error))
    except CRASHES as error:  # whatever the libraries or the attack raise, this trial is not there
        return _Begun(task, crash=one_line(error))


def _data(task: TrialTask, model: _Original) -> TrainingData:
    """Return what a trial learns, as a model's own autoencoder encodes it."""
    first = len(task.held_out)  # captions go with the prompts that generated the images, and these come first
    captions = tuple(task.captions[(first + i) % len(task.captions)] for i in range(len(task.images)))
    images, prior = model.latents(task.images), model.latents(task.prior)
    return TrainingData(images, captions, prior, task.prior_captions, task.concept, task.frozen)


def _learner(task: TrialTask, pipeline: Any, data: TrainingData) -> Learner:
    """Return the attack's learner; random numbers past the generator are the same for every model."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        learner: Learner = task.attack.learner(task.params, pipeline, data, torch.Generator().manual_seed(task.seed))
    lay_out_to_train(denoiser_of(pipeline))
    return learner


def _arm(denoiser: Any, task: TrialTask) -> Armed | None:
    """Keep what is frozen out of the training, before the attack sees the model."""
    if not task.frozen:
        return None
    from publisher.safeguards.freeze_mask.guard.arming import arm

    return arm(denoiser, task.frozen)


def _look(armed: Armed | None, task: TrialTask, *, adapters_alone: bool = False) -> None:
    """Find out whether the attack left alone what is frozen.

    Raises:
        Unmeasured: it did not.
    """
    if armed is None:
        return
    from publisher.safeguards.freeze_mask.guard.errors import MaskBrokenError

    try:
        armed.check(() if adapters_alone else None)
    except MaskBrokenError as error:
        raise Unmeasured(f"the attack {task.attack.name!r} does not honour masks: {one_line(error)}") from error


def _none(pipeline: Any) -> torch.Tensor:
    import torch

    latents = pipeline.anatomy.latents
    return torch.zeros((0, latents.channels, *latents.size), device=pipeline.device)


def _run(begun: _Begun) -> Trained:
    done = Trained(crash=begun.crash)
    if begun.learner is None:
        return done
    try:
        for evaluation_step in begun.task.params.evaluation_steps:
            _train(begun, begun.learner, evaluation_step - done.steps, done)
            if begun.source is not None:
                begun.task.attack.carry(begun.source, begun.pipeline)
            found = _evaluated(begun, done.steps)
            if not math.isfinite(found.loss):
                raise ArithmeticError("the loss on held-out images is not finite")  # noqa: TRY301 - like the learner's
            done.images.append(found.images)
            done.losses.append(round(found.loss, 6))
        _look(begun.armed, begun.task)
    except Unmeasured as error:
        done.crash = str(error)
    except (ArithmeticError, GenerateError) as error:
        done.problem = f"after {done.steps} steps: {one_line(error)}"
    except CRASHES as error:  # whatever the libraries or the attack raise, this trial is not there
        done.crash = f"after {done.steps} steps: {one_line(error)}"
    return done


def _train(begun: _Begun, learner: Learner, steps: int, done: Trained) -> None:
    began = time.perf_counter()
    for _ in range(steps):
        with nullcontext() if done.steps else FIRST_STEP:
            loss = learner.step()
        if not math.isfinite(loss):
            raise ArithmeticError("the loss is not finite")
        if begun.armed:
            begun.armed.enforce()
        done.steps += 1
        advance(1)
    done.seconds += time.perf_counter() - began


def _evaluated(begun: _Begun, steps: int) -> Evaluated:
    """Ask the model after so many training steps. Before the first one, trials of one model share what they find."""

    def evaluate() -> Evaluated:
        return Evaluated(_generated(begun), _loss(begun))

    if steps or begun.untrained is None:
        return evaluate()
    return begun.untrained.evaluated(begun.task, evaluate)


def _generated(begun: _Begun) -> torch.Tensor:
    import torch

    size = batch_size(begun.task.anatomy.latents.size)
    return torch.cat([generate(begun.pipeline, part) for part in parts(begun.task.requests, size)])


def parts(requests: Sequence[ImageRequest], size: int) -> Iterator[Sequence[ImageRequest]]:
    """Yield neighbours that go together in one batch, at most ``size`` of them."""
    for _, group in groupby(requests, batch_kind):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


def _loss(begun: _Begun) -> float:
    """Return the denoising loss on the held-out images: noise and timesteps are the same everywhere."""
    import torch

    from publisher.api.diffusion.denoiser import Denoiser
    from publisher.api.diffusion.latents import Noising
    from publisher.api.diffusion.text import Text

    x, pipeline, task = begun.held_out, begun.pipeline, begun.task
    if x is None or begun.asked is None:
        raise ValueError("the trial has not begun")
    noising, denoiser = Noising.of(pipeline), Denoiser.of(pipeline)
    generator = torch.Generator().manual_seed(seed_of("held-out", task.concept.id))
    together = max(1, batch_size(task.anatomy.latents.size) // len(x))
    losses = []
    with torch.no_grad():
        text = begun.asked.encode([task.captions[i % len(task.captions)] for i in range(len(x))])
        for first in range(0, TIMESTEPS, together):
            numbers = torch.arange(first, min(first + together, TIMESTEPS))
            noise = torch.cat([torch.randn(x.shape, generator=generator) for _ in numbers]).to(x.device)
            t = noising.at(((numbers + 0.5) / TIMESTEPS).repeat_interleave(len(x)).to(x.device))
            rows, texts = x.repeat(len(numbers), 1, 1, 1), Text.join([text] * len(numbers))
            losses.append(noising.loss(denoiser, rows, texts, noise, t))
    return float(torch.cat(losses).mean())
