"""Generate and judge all that the checks ask for: each image once, whoever asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.api import Concept, Judgement, Scorer, ScorerCard
from publisher.errors import CRASHES
from publisher.evaluate.context import Unmeasured
from publisher.evaluate.evidence import distance, pixels_sha256
from publisher.evaluate.requests import one_line

if TYPE_CHECKING:
    import torch


from collections.abc import Sequence
from dataclasses import field

from publisher.api import ImageRequest, MembraneUse, Scope
from publisher.errors import ModelError
from publisher.evaluate.context import ModelsUnderTest, Setting, Tools
from publisher.evaluate.evidence import png_base64
from publisher.evaluate.images import Batch, ModelImages, Wanted, batches, latents_of, without_concept
from publisher.evaluate.permeabilities import Permeabilities, score
from publisher.evaluate.requests import PRIVATE_KINDS
from publisher.runtime.generate import batch_size
from publisher.runtime.meter import Meter


@dataclass(frozen=True)
class Observation:
    """Both models' images of one request, as far as anybody has to know them."""

    base_sha256: str
    hardened_sha256: str
    distance: float
    judgements: Mapping[str, tuple[Judgement, Judgement] | str]
    """Scorer -> what it says of the base and of the hardened image, or why it says nothing."""


def ready(scorer: Scorer, device: str) -> ScorerCard:
    """Load a scorer.

    Raises:
        Unmeasured: it crashed, or nothing is known of its errors.
    """
    import torch

    try:
        card = scorer.card()
        scorer.load(torch.device(device))
    except CRASHES as error:  # a plugin may raise anything; its checks become unknown
        raise Unmeasured(f"the scorer {scorer.name!r} crashed: {one_line(error)}") from error
    if not card.calibration.strip():
        raise Unmeasured(f"the scorer {scorer.name!r} is uncalibrated: nothing is known of its errors")
    return card


@dataclass(frozen=True)
class Judged:
    """A batch of images of one model with what every scorer says of it."""

    images: torch.Tensor
    """``(n, 3, h, w)`` uint8."""
    said: Mapping[str, list[Judgement] | str]
    """Scorer -> one judgement an image, or why there is none."""


def judged(images: torch.Tensor, scorers: Mapping[str, Scorer]) -> Judged:
    """Ask every scorer about ``(n, 3, h, w)`` uint8."""
    return Judged(images, {name: _opinion(scorer, images) for name, scorer in scorers.items()})


def look(base: Judged, hardened: Judged) -> list[Observation]:
    """One observation for each pair of images."""
    said = {name: _paired(base.said[name], hardened.said[name]) for name in base.said}
    return [
        Observation(
            pixels_sha256(before),
            pixels_sha256(after),
            distance(before, after),
            {name: pairs if isinstance(pairs, str) else pairs[i] for name, pairs in said.items()},
        )
        for i, (before, after) in enumerate(zip(base.images, hardened.images, strict=True))
    ]


def _paired(base: list[Judgement] | str, hardened: list[Judgement] | str) -> list[tuple[Judgement, Judgement]] | str:
    if isinstance(base, str):
        return base
    return hardened if isinstance(hardened, str) else list(zip(base, hardened, strict=True))


def _opinion(scorer: Scorer, images: torch.Tensor) -> list[Judgement] | str:
    try:
        return _judge(scorer, images)
    except Unmeasured as error:
        return str(error)
    except CRASHES as error:  # a plugin may raise anything; its checks become unknown
        return f"the scorer {scorer.name!r} crashed: {one_line(error)}"


def _judge(scorer: Scorer, images: torch.Tensor) -> list[Judgement]:
    judgements = list(scorer.judge(images.float().div(255)))
    if len(judgements) != len(images):
        raise Unmeasured(f"the scorer {scorer.name!r} gave {len(judgements)} judgements of {len(images)} images")
    if not all(isinstance(judgement, Judgement) for judgement in judgements):
        raise Unmeasured(f"the scorer {scorer.name!r} gave something else than judgements")
    return [_rounded(judgement) for judgement in judgements]


def _rounded(judgement: Judgement) -> Judgement:
    """Validated anew (a plugin can build one past the validation), with scores to six digits."""
    scores = {kind: round(score, 6) for kind, score in judgement.scores.items()}
    if not all(0 <= score <= 1 for score in scores.values()):
        raise Unmeasured("the scorer gave a score that is no number in [0, 1]")
    return Judgement(labels=dict(judgement.labels), scores=scores)


def labelled(scorer: Scorer, name: str, images: torch.Tensor, concept: Concept) -> list[tuple[bool, str]]:
    """For each image, whether the scorer sees the concept, and what it sees."""
    said = judged(images, {name: scorer}).said[name]
    if isinstance(said, str):
        raise Unmeasured(said)
    if not all(concept.kind in judgement.labels for judgement in said):
        raise Unmeasured(f"the scorer {name!r} gave no judgement of the kind {concept.kind!r}")
    return [(judgement.shows(concept), judgement.labels[concept.kind]) for judgement in said]


def features(scorer: Scorer, images: torch.Tensor) -> torch.Tensor | None:
    """``(n, d)`` of length 1; None: the scorer has none."""
    import torch
    from torch.nn.functional import normalize

    found = scorer.features(images.float().div(255))
    if found is None:
        return None
    if found.ndim != 2 or len(found) != len(images) or not torch.isfinite(found).all():
        raise ValueError("not one finite vector for each image")
    return normalize(found.float(), dim=1)


@dataclass
class Observations:
    """What was seen of each image, asked for with the package's membranes or without."""

    seen: dict[Wanted, Observation] = field(default_factory=dict)
    problems: dict[Wanted, str] = field(default_factory=dict)
    """Generation -> why there is no image of it."""
    pictures: dict[Wanted, tuple[str, str]] = field(default_factory=dict)
    """Generation -> base and hardened image as base64 PNG, for those that the report shows."""
    permeabilities: Permeabilities | None = None
    """How far the prompts open the membranes; None: the model has none, and both ways of generating are one."""


def observe(
    wanted: Sequence[Wanted],
    shown: Sequence[ImageRequest],
    scope: Scope,
    models: ModelsUnderTest,
    tools: Tools,
    setting: Setting,
) -> Observations:
    """Generate every request with both models, base first, and judge the pairs.

    Args:
        wanted: of all checks, in their order.
        shown: those whose images the report shows; private ones are left out.
        scope: says which concepts are private.
        models: the two models; the hardened one is generated with and without its membranes where checks ask for both.
        tools: the scorers (each judges every image) and the executor.
        setting: device, store, progress.
    """
    found = Observations()
    private = [concept.id for concept in (*scope.concepts, *scope.keep) if concept.kind in PRIVATE_KINDS]
    try:
        size = batch_size(latents_of(models.base.folder))
    except ModelError as error:
        reason = f"the base model generated no image: {one_line(error)}"
        found.problems = {(without_concept(request), how): reason for request, how in wanted}
        return found
    plan = batches(wanted, private, size)
    if models.hardened.membranes:
        found.permeabilities = score(
            models.hardened, {request.prompt for request, _ in wanted}, tools.executor, setting
        )
    base, hardened = _image_sets(models, setting)
    _generate(plan, base, hardened, tools, setting)
    visible = {without_concept(request) for request in shown}
    for done, batch in enumerate(plan, start=1):
        _look(batch, base, hardened, tools.scorers, visible, found)
        setting.progress(done, len(plan), "batches judged")
    return found


def _image_sets(models: ModelsUnderTest, setting: Setting) -> tuple[ModelImages, dict[MembraneUse, ModelImages]]:
    """The base model's, and the hardened model's with and without its membranes: one and the same where it has none."""
    on = ModelImages(models.hardened, setting, "hardened model")
    off = (
        ModelImages(models.hardened.bare, setting, "hardened model without membranes")
        if models.hardened.membranes
        else on
    )
    return ModelImages(models.base, setting, "base model"), {"on": on, "off": off}


def _generate(
    plan: Sequence[Batch],
    base: ModelImages,
    hardened: Mapping[MembraneUse, ModelImages],
    tools: Tools,
    setting: Setting,
) -> None:
    work = {base: list(plan)}
    for model_images in hardened.values():
        work[model_images] = [batch for batch in plan if any(hardened[how] is model_images for how in batch.membranes)]
    total = sum(len(batch.requests) for asked in work.values() for batch in asked)
    with Meter(setting.progress, total, base.name) as meter:
        for model_images, asked in work.items():
            meter.text = model_images.name
            for count in model_images.fill(asked, tools.executor):
                meter.settle(count)


def _look(
    batch: Batch,
    base: ModelImages,
    hardened: Mapping[MembraneUse, ModelImages],
    scorers: Mapping[str, Scorer],
    visible: set[ImageRequest],
    found: Observations,
) -> None:
    images = base.look(batch)
    before = None if images is None else judged(images, scorers)
    ways = {
        model_images: [how for how in batch.membranes if hardened[how] is model_images]
        for model_images in hardened.values()
    }
    for model_images, hows in ways.items():
        after = model_images.look(batch) if hows else None
        keys = [(request, how) for how in hows for request in batch.requests]
        if before is None or after is None:
            found.problems |= dict.fromkeys(keys, _absent(batch, {base: images, model_images: after}))
        elif after.shape != before.images.shape:
            sizes = f"{tuple(before.images.shape[2:])} and {tuple(after.shape[2:])}"
            found.problems |= dict.fromkeys(keys, f"the models generate images of different sizes: {sizes}")
        else:
            seen = look(before, before if after.equal(before.images) else judged(after, scorers))
            found.seen |= zip(keys, seen * len(hows), strict=True)
            shown = () if batch.private else [i for i, request in enumerate(batch.requests) if request in visible]
            for i in shown:
                pictures = png_base64(before.images[i]), png_base64(after[i])
                found.pictures |= {(batch.requests[i], how): pictures for how in hows}


def _absent(batch: Batch, images: Mapping[ModelImages, object]) -> str:
    missing = [model_images for model_images, found in images.items() if found is None]
    return "; ".join(
        f"the {model_images.name} generated no image: {model_images.why(batch)}" for model_images in missing
    )
