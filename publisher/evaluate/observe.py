"""Generate and judge all that the checks ask for: each image once, whichever check asks for it.

All images are generated first. Then one scorer after the other is loaded and judges those that checks need it for.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from publisher.api import ImageRequest, Judgement, Scope
from publisher.evaluate.context import ModelsUnderTest, Setting, Tools, Unmeasured
from publisher.evaluate.evidence import distance, pixels_sha256, png_base64
from publisher.evaluate.images import Batch, ModelImages, Wanted, batches
from publisher.evaluate.permeabilities import Permeabilities, score
from publisher.evaluate.requests import PRIVATE_KINDS
from publisher.evaluate.scorers import JUDGE, Task, done, loaded
from publisher.runtime.generate import batch_size
from publisher.runtime.meter import Meter

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Seen:
    """Both models' images of one request, as far as anybody has to know them."""

    base_sha256: str
    hardened_sha256: str
    distance: float
    judgements: Mapping[str, tuple[Judgement, Judgement] | str]
    """Scorer's id -> what it says of the base and of the hardened image, or why it says nothing."""
    read: Mapping[Task, tuple[Any, Any] | str] = field(default_factory=dict)
    """The same of all that scorers had to do with them: judgements, cosines with the prompt, feature vectors."""


@dataclass(frozen=True)
class Place:
    """Where one image of the base model and one of the hardened model are stored."""

    batch: Batch
    at: int
    """Number in the batch."""
    base: ModelImages
    hardened: ModelImages

    def pictures(self) -> tuple[str, str] | None:
        """Return both as base64 PNG; None where they were lost."""
        before, after = self.base.look(self.batch), self.hardened.look(self.batch)
        if before is None or after is None:
            return None
        return png_base64(before[self.at]), png_base64(after[self.at])


@dataclass
class Observations:
    """What was seen of each image, asked for with the package's safeguards attached or without."""

    seen: dict[Wanted, Seen] = field(default_factory=dict)
    problems: dict[Wanted, str] = field(default_factory=dict)
    """Generation -> why there is no image of it."""
    places: dict[Wanted, Place] = field(default_factory=dict)
    """Generation -> where its images are; none of private ones."""
    permeabilities: Permeabilities | None = None
    """How far the prompts let them act; None: nothing is ever attached, and both ways of generating are one."""

    def pictures(self, wanted: Wanted) -> tuple[str, str] | None:
        """Return the base and the hardened image as base64 PNG; None where nobody may see them, or they are lost."""
        place = self.places.get(wanted)
        return place.pictures() if place else None


def observe(
    wanted: Sequence[Wanted],
    scope: Scope,
    models: ModelsUnderTest,
    tools: Tools,
    setting: Setting,
    *,
    tasks: Mapping[ImageRequest, Collection[Task]],
) -> Observations:
    """Generate every request with both models, base first, and judge the pairs.

    Args:
        wanted: of all checks, in their order.
        scope: says which concepts are private.
        models: the two models; the hardened one generates with and without its safeguards where checks ask for both.
        tools: the scorers and the executor.
        setting: device, store, progress.
        tasks: request without its concept -> what which scorer has to do with its images.
    """
    found = Observations()
    private = [concept.id for concept in (*scope.concepts, *scope.keep) if concept.kind in PRIVATE_KINDS]
    plan = batches(wanted, private, batch_size(models.base.anatomy.latents.size))
    if models.hardened.attached:
        found.permeabilities = score(
            models.hardened, {request.prompt for request, _ in wanted}, tools.executor, setting
        )
    base, hardened = _image_sets(models, setting)
    _generate(plan, base, hardened, tools, setting)
    jobs = [_Judging(batch, base, hardened, tasks) for batch in plan]
    _judge(jobs, tools, setting)
    for job in jobs:
        _look(job, found)
    return found


@dataclass(eq=False)
class _Judging:
    """A batch of images of several models, and what every scorer says of them."""

    batch: Batch
    base: ModelImages
    hardened: Mapping[bool, ModelImages]
    tasks: Mapping[ImageRequest, Collection[Task]]
    said: dict[tuple[Task, ModelImages], Sequence[Any] | str] = field(default_factory=dict)
    """Scorer's task and model -> what it says of the model's images, one by one, or why it says nothing."""

    @property
    def ways(self) -> dict[ModelImages, list[bool]]:
        """Hardened model -> how the checks ask for it."""
        return {
            images: [how for how in self.batch.attached if self.hardened[how] is images]
            for images in self.hardened.values()
        }

    def needs(self, name: str) -> list[Task]:
        """Return what a scorer has to do with one of the images or more."""
        every = {task for request in self.batch.requests for task in self.tasks.get(request, ())}
        return sorted(task for task in every if task[0] == name)


def _judge(jobs: Sequence[_Judging], tools: Tools, setting: Setting) -> None:
    """Load one scorer after the other and let it judge the batches that it is needed for."""
    needed = {name: [job for job in jobs if job.needs(name)] for name in tools.scorers}
    total, done = sum(map(len, needed.values())), 0
    for name, its_jobs in needed.items():
        if not its_jobs:
            continue
        try:
            with loaded(tools.scorers[name], setting):
                for job in its_jobs:
                    _judge_one(job, name, tools)
                    done += 1
                    setting.progress(done, total, "batches judged")
        except Unmeasured as error:
            for job in its_jobs:
                job.said |= {(task, images): str(error) for task in job.needs(name) for images in (job.base, *job.ways)}


def _judge_one(job: _Judging, name: str, tools: Tools) -> None:
    scorer, before = tools.scorers[name], job.base.look(job.batch)
    if before is None:
        return
    prompts = [request.prompt for request in job.batch.requests]
    for task in job.needs(name):
        job.said[task, job.base] = done(task, scorer, before, prompts)
        for images, hows in job.ways.items():
            after = images.look(job.batch) if hows else None
            if after is not None and after.shape == before.shape:
                same = after.equal(before)
                job.said[task, images] = job.said[task, job.base] if same else done(task, scorer, after, prompts)


def _image_sets(models: ModelsUnderTest, setting: Setting) -> tuple[ModelImages, dict[bool, ModelImages]]:
    """Return the base model's, and the hardened model's with its safeguards attached and without.

    Where nothing is ever attached, the two are one and the same.
    """
    on = ModelImages(models.hardened, setting, "hardened model")
    off = (
        ModelImages(models.hardened.bare, setting, "hardened model with nothing attached")
        if models.hardened.attached
        else on
    )
    return ModelImages(models.base, setting, "base model"), {True: on, False: off}


def _generate(
    plan: Sequence[Batch],
    base: ModelImages,
    hardened: Mapping[bool, ModelImages],
    tools: Tools,
    setting: Setting,
) -> None:
    work = {base: list(plan)}
    for model_images in hardened.values():
        work[model_images] = [batch for batch in plan if any(hardened[how] is model_images for how in batch.attached)]
    total = sum(len(batch.requests) for asked in work.values() for batch in asked)
    with Meter(setting.progress, total, base.name) as meter:
        for model_images, asked in work.items():
            meter.text = model_images.name
            for count in model_images.fill(asked, tools.executor):
                meter.settle(count)


def _look(job: _Judging, found: Observations) -> None:
    batch = job.batch
    before = job.base.look(batch)
    for model_images, hows in job.ways.items():
        after = model_images.look(batch) if hows else None
        keys = [(request, how) for how in hows for request in batch.requests]
        if before is None or after is None:
            found.problems |= dict.fromkeys(keys, _absent(batch, {job.base: before, model_images: after}))
        elif after.shape != before.shape:
            sizes = f"{tuple(before.shape[2:])} and {tuple(after.shape[2:])}"
            found.problems |= dict.fromkeys(keys, f"the models generate images of different sizes: {sizes}")
        else:
            seen = [_seen(job, i, before[i], after[i], model_images) for i in range(len(batch.requests))]
            found.seen |= zip(keys, seen * len(hows), strict=True)
            places = [] if batch.private else [Place(batch, i, job.base, model_images) for i in range(len(seen))]
            found.places |= dict(zip(keys, places * len(hows), strict=False))


def _seen(job: _Judging, i: int, before: torch.Tensor, after: torch.Tensor, hardened: ModelImages) -> Seen:
    """Return what is known of one image of the base model and one of the hardened model."""
    read: dict[Task, tuple[Any, Any] | str] = {}
    for task in {task for task, _ in job.said}:
        both = job.said[task, job.base], job.said[task, hardened]
        problem = next((said for said in both if isinstance(said, str)), None)
        read[task] = problem if problem is not None else (both[0][i], both[1][i])
    judgements = {name: said for (name, what), said in read.items() if what == JUDGE}
    return Seen(pixels_sha256(before), pixels_sha256(after), distance(before, after), judgements, read)


def _absent(batch: Batch, images: Mapping[ModelImages, object]) -> str:
    missing = [model_images for model_images, found in images.items() if found is None]
    return "; ".join(
        f"the {model_images.name} generated no image: {model_images.why(batch)}" for model_images in missing
    )
