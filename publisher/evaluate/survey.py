"""Draw and judge all that the checks ask for: each drawing once, whoever asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from publisher.api import ImageRequest, MembraneUse, Scope, Scorer
from publisher.errors import ModelError
from publisher.evaluate.asking import PRIVATE_KINDS, one_line
from publisher.evaluate.batches import Batch, Wanted, batches, drawing
from publisher.evaluate.evidence import png_base64
from publisher.evaluate.gallery import Gallery, latents_of
from publisher.evaluate.judging import Sight, judged, look
from publisher.evaluate.permeabilities import Openings, score
from publisher.evaluate.tools import Arms, Setting, Tools
from publisher.runtime.drawing import batch_size
from publisher.runtime.meter import Meter


@dataclass
class Survey:
    """What was seen of each drawing, asked for with the package's membranes or without."""

    sights: dict[Wanted, Sight] = field(default_factory=dict)
    problems: dict[Wanted, str] = field(default_factory=dict)
    """Drawing -> why there is no image of it."""
    pictures: dict[Wanted, tuple[str, str]] = field(default_factory=dict)
    """Drawing -> base and hardened image as base64 PNG, for those that the report shows."""
    openings: Openings | None = None
    """How far the prompts open the membranes; None: the model has none, and both ways of drawing are one."""


def survey(
    wanted: Sequence[Wanted], shown: Sequence[ImageRequest], scope: Scope, arms: Arms, tools: Tools, setting: Setting
) -> Survey:
    """Draw every request with both models, base first, and judge the pairs.

    Args:
        wanted: of all checks, in their order.
        shown: those whose images the report shows; private ones are left out.
        scope: says which concepts are private.
        arms: the two models; the hardened one is drawn with and without its membranes where checks ask for both.
        tools: the scorers (each judges every image) and the executor.
        setting: device, store, progress.
    """
    found = Survey()
    private = [concept.id for concept in (*scope.concepts, *scope.keep) if concept.kind in PRIVATE_KINDS]
    try:
        size = batch_size(latents_of(arms.base.folder))
    except ModelError as error:
        reason = f"the base model drew no image: {one_line(error)}"
        found.problems = {(drawing(request), how): reason for request, how in wanted}
        return found
    plan = batches(wanted, private, size)
    if arms.hardened.membranes:
        found.openings = score(arms.hardened, {request.prompt for request, _ in wanted}, tools.executor, setting)
    base, hardened = _galleries(arms, setting)
    _draw(plan, base, hardened, tools, setting)
    visible = {drawing(request) for request in shown}
    for done, batch in enumerate(plan, start=1):
        _look(batch, base, hardened, tools.scorers, visible, found)
        setting.progress(done, len(plan), "batches judged")
    return found


def _galleries(arms: Arms, setting: Setting) -> tuple[Gallery, dict[MembraneUse, Gallery]]:
    """The base model's, and the hardened model's with and without its membranes: one and the same where it has none."""
    on = Gallery(arms.hardened, setting, "hardened model")
    off = Gallery(arms.hardened.bare, setting, "hardened model without membranes") if arms.hardened.membranes else on
    return Gallery(arms.base, setting, "base model"), {"on": on, "off": off}


def _draw(
    plan: Sequence[Batch], base: Gallery, hardened: Mapping[MembraneUse, Gallery], tools: Tools, setting: Setting
) -> None:
    work = {base: list(plan)}
    for gallery in hardened.values():
        work[gallery] = [batch for batch in plan if any(hardened[how] is gallery for how in batch.membranes)]
    total = sum(len(batch.requests) for asked in work.values() for batch in asked)
    with Meter(setting.progress, total, base.name) as meter:
        for gallery, asked in work.items():
            meter.text = gallery.name
            for count in gallery.fill(asked, tools.executor):
                meter.settle(count)


def _look(
    batch: Batch,
    base: Gallery,
    hardened: Mapping[MembraneUse, Gallery],
    scorers: Mapping[str, Scorer],
    visible: set[ImageRequest],
    found: Survey,
) -> None:
    images = base.look(batch)
    before = None if images is None else judged(images, scorers)
    ways = {gallery: [how for how in batch.membranes if hardened[how] is gallery] for gallery in hardened.values()}
    for gallery, hows in ways.items():
        after = gallery.look(batch) if hows else None
        keys = [(request, how) for how in hows for request in batch.requests]
        if before is None or after is None:
            found.problems |= dict.fromkeys(keys, _absent(batch, {base: images, gallery: after}))
        elif after.shape != before.images.shape:
            sizes = f"{tuple(before.images.shape[2:])} and {tuple(after.shape[2:])}"
            found.problems |= dict.fromkeys(keys, f"the models draw images of different sizes: {sizes}")
        else:
            sights = look(before, before if after.equal(before.images) else judged(after, scorers))
            found.sights |= zip(keys, sights * len(hows), strict=True)
            shown = () if batch.private else [i for i, request in enumerate(batch.requests) if request in visible]
            for i in shown:
                pictures = png_base64(before.images[i]), png_base64(after[i])
                found.pictures |= {(batch.requests[i], how): pictures for how in hows}


def _absent(batch: Batch, images: Mapping[Gallery, object]) -> str:
    missing = [gallery for gallery, found in images.items() if found is None]
    return "; ".join(f"the {gallery.name} drew no image: {gallery.why(batch)}" for gallery in missing)
