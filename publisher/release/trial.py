"""One image of each base model before the first step runs: what cannot be generated is known now, not after hours."""

from __future__ import annotations

from pathlib import Path

from publisher.api import ImageRequest
from publisher.engine.plan import PlannedModel
from publisher.engine.progress import Progress
from publisher.errors import ModelError, PublisherError
from publisher.evaluate.context import ModelUnderTest, Setting
from publisher.evaluate.images import Batch, ModelImages
from publisher.evaluate.requests import PRIVATE_KINDS
from publisher.evaluate.store import ImageStore
from publisher.release.prepare import PreparedRelease

STEPS = 4
"""Sampling steps at most: fewer than some samplers can do."""


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


def _generate(model: PlannedModel, prepared: PreparedRelease, setting: Setting, name: str) -> None:
    sampling = prepared.resolved.evaluate.sampling
    steps = min(STEPS, sampling.steps)
    request = ImageRequest(concept="", prompt="", seed=sampling.seed, steps=steps, guidance=sampling.guidance)
    private = any(concept.kind in PRIVATE_KINDS for concept in prepared.resolved.scope.concepts)
    batch = Batch((request,), private=private)
    images = ModelImages(ModelUnderTest(model.folder.path, model.folder.anatomy, model.folder.digest), setting, name)
    for _ in images.fill([batch], prepared.tools.executor):
        pass
    if images.failure:
        raise PublisherError(images.failure, where="evaluate.executor", hint="Nothing was run yet.")
    if images.look(batch) is None:
        raise ModelError(
            f"the {name} generated no image, so nothing could be judged after the steps: {images.why(batch)}",
            where=model.reference,
            hint="Nothing was run. Generate one image with diffusers, DiffusionPipeline.from_pretrained, and mend what "
            "it complains about.",
        )
