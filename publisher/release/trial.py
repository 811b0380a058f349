"""One image of each base model before the first step runs: what cannot be drawn is known now, and not after hours."""

from __future__ import annotations

from pathlib import Path

from publisher.api import ImageRequest
from publisher.engine.plan import PlannedModel
from publisher.engine.progress import Progress
from publisher.errors import ModelError, PublisherError
from publisher.evaluate.asking import PRIVATE_KINDS
from publisher.evaluate.batches import Batch
from publisher.evaluate.gallery import Gallery
from publisher.evaluate.store import ImageStore
from publisher.evaluate.tools import Arm, Setting
from publisher.release.prepare import Prepared

STEPS = 4
"""Sampling steps at most: fewer than some samplers can do."""


def draw_trial(prepared: Prepared, work: Path, progress: Progress) -> None:
    """Draw one image with every model that nothing has been drawn with yet, as the evaluation will draw.

    The image shows no prompt and says nothing of the model but that it draws. It is kept in the work folder, unless a
    concept is one whose images never are. Where every step's result is there already, nothing is drawn.

    Args:
        prepared: the release; its models are on this machine.
        work: the work folder.
        progress: is told which model draws.

    Raises:
        ModelError: one draws no image.
        PublisherError: the executor failed.
    """
    if all(step.cached for step in prepared.steps):
        return
    store = ImageStore(work / "images", progress.warn)
    setting = Setting(prepared.device.name, prepared.device.dtype, store)
    for name, model in (("base model", prepared.model), ("gold model", prepared.gold)):
        if model is not None:
            progress.update("trial image", 0, 1, name)
            _draw(model, prepared, setting, name)
            progress.update("trial image", 1, 1, name)


def _draw(model: PlannedModel, prepared: Prepared, setting: Setting, name: str) -> None:
    sampling = prepared.resolved.evaluate.sampling
    steps = min(STEPS, sampling.steps)
    request = ImageRequest(concept="", prompt="", seed=sampling.seed, steps=steps, guidance=sampling.guidance)
    private = any(concept.kind in PRIVATE_KINDS for concept in prepared.resolved.scope.concepts)
    batch = Batch((request,), private=private)
    gallery = Gallery(Arm(model.folder.path, model.folder.digest), setting, name)
    for _ in gallery.fill([batch], prepared.tools.executor):
        pass
    if gallery.failure:
        raise PublisherError(gallery.failure, where="evaluate.executor", hint="Nothing was run yet.")
    if gallery.look(batch) is None:
        raise ModelError(
            f"the {name} drew no image, so nothing could be judged after the steps: {gallery.why(batch)}",
            where=model.reference,
            hint="Nothing was run. Draw one image with diffusers, DiffusionPipeline.from_pretrained, and mend what it "
            "complains about.",
        )
