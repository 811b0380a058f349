"""Images of the base model before the first step runs: what it cannot generate is known now, not after hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from publisher.api import Check, Concept, ImageRequest, Judgement
from publisher.engine.plan import PlannedModel
from publisher.engine.progress import Progress
from publisher.errors import ModelError, PublisherError, UsageError
from publisher.evaluate.context import ModelUnderTest, ReleaseScorer, Setting, Tools, Unmeasured
from publisher.evaluate.images import Batch, ModelImages, batches
from publisher.evaluate.requests import PRIVATE_KINDS
from publisher.evaluate.scorers import agreed, judge_of, judgements, loaded
from publisher.evaluate.store import ImageStore
from publisher.release.prepare import PreparedRelease
from publisher.runtime.generate import batch_size
from publisher.runtime.references import reference_requests

if TYPE_CHECKING:
    import torch

STEPS = 4
"""Sampling steps at most: fewer than some samplers can do."""
LOOKS = 12
"""Number of images of a concept by which it is said whether the base model shows it."""
HARDLY = 2
"""Most of them that show a concept which is refused: 2 of 12 are 2% to 48% by the exact 95% interval, 3 may be half."""


def generate_trial(prepared: PreparedRelease, work: Path, progress: Progress) -> None:
    """Generate one image with every model that nothing has been generated with yet, as the evaluation will generate.

    The image shows no prompt and says nothing of the model but that it generates. It is kept in the work folder,
    unless a concept is one whose images never are. Where every step's result is there already, nothing is generated.

    Args:
        prepared: the release; its models are on this machine.
        work: the work folder.
        progress: is told which model generates.

    Raises:
        ModelError: one generates no image.
        PublisherError: the executor failed.
    """
    if all(step.cached for step in prepared.steps):
        return
    store = ImageStore(work / "images", progress.warn)
    setting = Setting(prepared.device.name, prepared.device.dtype, store)
    for name, model in (("base model", prepared.model), ("retrained reference", prepared.retrained)):
        if model is not None:
            progress.update("trial image", 0, 1, name)
            _generate(model, prepared, setting, name)
            progress.update("trial image", 1, 1, name)


def require_shown(prepared: PreparedRelease, work: Path, progress: Progress) -> None:
    """Refuse a step that trains on images of a concept which the base model hardly generates.

    The images are the first of the publisher's generated references, judged as the checks judge; one of which the
    scorer is unsure counts as if it showed the concept. Where no scorer judges the concept nobody can tell, and its
    checks say so. Where the step's result is there already, nothing is generated.

    Args:
        prepared: the release; its model is on this machine.
        work: the work folder.
        progress: is told how many images there are.

    Raises:
        UsageError: naming concept and step.
        ModelError: the model generated no image.
        PublisherError: the executor or a scorer failed.
    """
    steps = [step for step in prepared.steps if step.plan and not step.cached]
    asking = {name: step.identity.id for step in reversed(steps) if step.plan for name in step.plan.draws}
    judges = {
        concept: scorers
        for concept in prepared.resolved.scope.concepts
        if concept.id in asking and (scorers := _judges(concept, prepared.tools))
    }
    if not judges or prepared.model is None:
        return
    names = ", ".join(concept.id for concept in judges)
    progress.say(f"Base model: {LOOKS} images of each of {names}, to see that it shows what steps train on")
    setting = Setting(prepared.device.name, prepared.device.dtype, ImageStore(work / "images", progress.warn))
    shown = _looks(list(judges), prepared, prepared.model, setting, progress)
    for concept, said in _judged(judges, shown, setting).items():
        hits = sum(agreed(one).shows(concept) is not False for one in said)
        if hits <= HARDLY:
            raise UsageError(
                f"the step {asking[concept.id]!r} trains on images of {concept.id!r} by the base model, and {hits} of "
                f"{LOOKS} show it: by the 95% interval fewer than half",
                where=str(prepared.path),
                hint="Nothing was run. Give it prompts by which this model shows it; if none do, there is nothing to "
                "take out. A step that reads reference images can have yours, under the concept's 'images'.",
            )


def _judges(concept: Concept, tools: Tools) -> tuple[ReleaseScorer, ...]:
    """Return the scorers that judge a concept; none where its checks cannot be judged either."""
    check = Check(id="trial", attack="plain", metric="concept-rate", concepts=(concept.id,))
    try:
        return tools.members(judge_of(concept, check, tools, judged=True))
    except Unmeasured:
        return ()


def _looks(
    concepts: Sequence[Concept], prepared: PreparedRelease, model: PlannedModel, setting: Setting, progress: Progress
) -> dict[Concept, torch.Tensor]:
    """Return some images of each concept, ``(n, 3, h, w)`` uint8."""
    import torch

    sampling, size = prepared.resolved.evaluate.sampling, batch_size(model.folder.anatomy.latents.size)
    private = [concept.id for concept in concepts if concept.kind in PRIVATE_KINDS]
    plans = {
        concept: batches(
            [(one, True) for one in reference_requests(concept, LOOKS, "publisher", sampling.steps, sampling.guidance)],
            private,
            size,
        )
        for concept in concepts
    }
    images = ModelImages(_under_test(model), setting, "base model")
    asked, done = [batch for plan in plans.values() for batch in plan], 0
    for count in images.fill(asked, prepared.tools.executor):
        done += count
        progress.update("trial images", done, LOOKS * len(plans), "base model")
    return {concept: torch.cat([_there(images, batch, model) for batch in plan]) for concept, plan in plans.items()}


def _judged(
    judges: Mapping[Concept, Sequence[ReleaseScorer]], shown: Mapping[Concept, torch.Tensor], setting: Setting
) -> dict[Concept, list[tuple[Judgement, ...]]]:
    """Return what its scorers say of each image of a concept; one scorer after the other is loaded."""
    said: dict[Concept, list[list[Judgement]]] = {concept: [] for concept in judges}
    for scorer in dict.fromkeys(one for scorers in judges.values() for one in scorers):
        try:
            with loaded(scorer, setting):
                for concept in (one for one, scorers in judges.items() if scorer in scorers):
                    said[concept].append(judgements(scorer, shown[concept], concept))
        except Unmeasured as error:
            raise PublisherError(str(error), where="evaluate", hint="Nothing was run yet.") from error
    return {concept: list(zip(*each, strict=True)) for concept, each in said.items()}


def _generate(model: PlannedModel, prepared: PreparedRelease, setting: Setting, name: str) -> None:
    sampling = prepared.resolved.evaluate.sampling
    steps = min(STEPS, sampling.steps)
    request = ImageRequest(concept="", prompt="", seed=sampling.seed, steps=steps, guidance=sampling.guidance)
    private = any(concept.kind in PRIVATE_KINDS for concept in prepared.resolved.scope.concepts)
    batch = Batch((request,), private=private)
    images = ModelImages(_under_test(model), setting, name)
    for _ in images.fill([batch], prepared.tools.executor):
        pass
    _there(images, batch, model)


def _under_test(model: PlannedModel) -> ModelUnderTest:
    return ModelUnderTest(model.folder.path, model.folder.anatomy, model.folder.digest)


def _there(images: ModelImages, batch: Batch, model: PlannedModel) -> torch.Tensor:
    """Return the images of a batch, or say why they are not there."""
    if images.failure:
        raise PublisherError(images.failure, where="evaluate.executor", hint="Nothing was run yet.")
    found = images.look(batch)
    if found is None:
        raise ModelError(
            f"the {images.name} generated no image, so nothing could be judged after the steps: {images.why(batch)}",
            where=model.reference,
            hint="Nothing was run. Generate one image with diffusers, DiffusionPipeline.from_pretrained, and mend what "
            "it complains about.",
        )
    return found
