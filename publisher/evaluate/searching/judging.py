"""Judge a find: generate from it again on given seeds, on any model, and look at the images. No search is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from publisher.api import Begin, Concept, Find, ImageRequest
from publisher.api.evidence import FindRow
from publisher.errors import CRASHES
from publisher.evaluate.context import ModelUnderTest, Unmeasured
from publisher.evaluate.requests import one_line
from publisher.evaluate.searching.images import Gallery

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.starting import Start
    from publisher.api.diffusion.text import Text


def judge_find(
    gallery: Gallery,
    find: Find,
    seeds: Sequence[int],
    concept: Concept,
    scorer: str,
    model: ModelUnderTest,
    *,
    base: ModelUnderTest | None = None,
) -> FindRow:
    """Generate an image from a find for each seed, and say what is seen in them.

    Args:
        gallery: generates and looks.
        find: what brought the concept back.
        seeds: of the images' initial noise; the find's prompts are asked in turn.
        concept: that is looked for.
        scorer: id of the scorer, or of several that judge together.
        model: that the find is tried on.
        base: second model that it is tried on, by its labels alone; None: on no other.

    Raises:
        Unmeasured: an image was not generated or not judged, or the find's tensors were lost.
    """
    asked = (_requests(gallery, find, seeds, concept), concept, scorer)
    text, start = _input(gallery, find, asked[0], model)
    looks = gallery.looks(model, *asked, text, start)
    alone = gallery.inputs(model, *asked, start) if start and not start.begin.blank else []
    apart = gallery.unknown_parts(model, *asked, start) if start and start.mask is not None else []
    other = gallery.looks(base, *asked, *_input(gallery, find, asked[0], base)) if base else []
    return FindRow(
        find=find,
        seal=gallery.setting.vault.seal(find),
        seeds=tuple(seeds),
        labels=tuple(look.label for look in looks),
        sha256=tuple(look.sha256 for look in looks),
        base_labels=tuple(look.label for look in other),
        input_labels=tuple(look.label for look in alone),
        unknown_labels=tuple(look.label for look in apart),
        spent=find.spent,
    )


def _requests(gallery: Gallery, find: Find, seeds: Sequence[int], concept: Concept) -> list[ImageRequest]:
    own = {"negative_prompt": find.negative_prompt, "guidance": find.guidance, "steps": find.steps}
    changed = {name: value for name, value in own.items() if value is not None}
    return [
        gallery.request(concept, find.prompts[i % len(find.prompts)], seed).model_copy(update=changed)
        for i, seed in enumerate(seeds)
    ]


def _input(
    gallery: Gallery, find: Find, requests: Sequence[ImageRequest], model: ModelUnderTest
) -> tuple[Text | None, Start | None]:
    """Return what a find puts in place of its prompts, or of noise, a row for each image.

    Raises:
        Unmeasured: its tensors were lost, or do not fit the model.
    """
    if find.tensors is None:
        return None, None
    found = gallery.setting.vault.tensors(find.tensors)
    if found is None:
        raise Unmeasured("the tensors of a find were lost")
    if find.begin is not None:
        return None, _start(find.begin, found, len(requests))
    if find.kind == "embedding":
        vectors = [found[f"vectors_{i + 1}"] for i in range(len(found))]
        return _written(gallery, [one.prompt for one in requests], vectors, model), None
    return _states(found, [i % len(find.prompts) for i in range(len(requests))]), None


def _written(gallery: Gallery, prompts: Sequence[str], vectors: Sequence[torch.Tensor], model: ModelUnderTest) -> Text:
    """Return prompts with vectors in their slots, as this model's own text encoders read them."""
    import torch

    from publisher.api.diffusion.vectors import read_vectors

    try:
        with torch.no_grad():
            return read_vectors(gallery.pipeline(model), prompts, vectors)
    except CRASHES as error:  # whatever the libraries raise, these images are not there
        raise Unmeasured(f"the vectors of a find cannot be read: {one_line(error)}") from error


def _states(found: Mapping[str, torch.Tensor], rows: list[int]) -> Text:
    from publisher.api.diffusion.text import Text as States

    return States(found["states"][rows], found["pooled"][rows] if "pooled" in found else None)


def _start(begin: Begin, found: Mapping[str, torch.Tensor], count: int) -> Start:
    from publisher.api.diffusion.starting import Start as Rows

    whole = Rows.of(begin, found)
    return whole.rows([i % len(whole.latents) for i in range(count)])
