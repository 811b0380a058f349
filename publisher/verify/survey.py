"""Draw and judge all that the checks ask for: each drawing once, whoever asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from publisher.api import ImageRequest, Scope, Scorer
from publisher.verify.asking import PRIVATE_KINDS, one_line
from publisher.verify.batches import Batch, batch_size, batches, drawing
from publisher.verify.evidence import png_base64
from publisher.verify.gallery import Gallery, latents_of
from publisher.verify.judging import Sight, look
from publisher.verify.tools import Arms, Setting, Tools


@dataclass
class Survey:
    """What was seen of each drawing."""

    sights: dict[ImageRequest, Sight] = field(default_factory=dict)
    problems: dict[ImageRequest, str] = field(default_factory=dict)
    """Drawing -> why there is no image of it."""
    pictures: dict[ImageRequest, tuple[str, str]] = field(default_factory=dict)
    """Drawing -> base and hardened image as base64 PNG, for those that the report shows."""


def survey(
    requests: Sequence[ImageRequest], shown: Sequence[ImageRequest], scope: Scope, arms: Arms, tools: Tools,
    setting: Setting,
) -> Survey:  # fmt: skip
    """Draw every request with both models, base first, and judge the pairs.

    Args:
        requests: of all checks, in their order.
        shown: those whose images the report shows; private ones are left out.
        scope: says which concepts are private.
        arms: the two models.
        tools: the scorers (each judges every image) and the executor.
        setting: device, store, progress.
    """
    found = Survey()
    private = [concept.id for concept in (*scope.concepts, *scope.keep) if concept.kind in PRIVATE_KINDS]
    try:
        size = batch_size(latents_of(arms.base.folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        found.problems = {drawing(request): _no_image("base", one_line(error)) for request in requests}
        return found
    plan = batches(requests, private, size)
    galleries = {"base": Gallery(arms.base, setting), "hardened": Gallery(arms.hardened, setting)}
    _draw(plan, galleries, tools, setting)
    visible = {drawing(request) for request in shown}
    for batch in plan:
        _look(batch, galleries, tools.scorers, visible, found)
    return found


def _draw(plan: Sequence[Batch], galleries: Mapping[str, Gallery], tools: Tools, setting: Setting) -> None:
    done, total = 0, 2 * sum(len(batch.requests) for batch in plan)
    for name, gallery in galleries.items():
        setting.progress(done, total, f"{name} model")
        for count in gallery.fill(plan, tools.executor):
            done += count
            setting.progress(done, total, f"{name} model")


def _look(
    batch: Batch, galleries: Mapping[str, Gallery], scorers: Mapping[str, Scorer], visible: set[ImageRequest],
    found: Survey,
) -> None:  # fmt: skip
    images = {name: gallery.look(batch) for name, gallery in galleries.items()}
    base, hardened = images["base"], images["hardened"]
    if base is None or hardened is None:
        reason = "; ".join(_no_image(name, galleries[name].why(batch)) for name in images if images[name] is None)
        found.problems |= dict.fromkeys(batch.requests, reason)
        return
    if base.shape != hardened.shape:
        reason = f"the models draw images of different sizes: {tuple(base.shape[2:])} and {tuple(hardened.shape[2:])}"
        found.problems |= dict.fromkeys(batch.requests, reason)
        return
    found.sights |= zip(batch.requests, look(base, hardened, scorers), strict=True)
    for i, request in enumerate(batch.requests):
        if request in visible and not batch.private:
            found.pictures[request] = (png_base64(base[i]), png_base64(hardened[i]))


def _no_image(model: str, why: str) -> str:
    return f"the {model} model drew no image: {why}"
