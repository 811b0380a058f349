"""What attackers train on: reference images of a concept, others that are held out, and images of other things."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher.api import Concept, Executor, ImageRequest, Sampling, Scope, TrainingAttack, TrainingParams
from publisher.errors import CRASHES, PublisherError
from publisher.evaluate.context import ModelUnderTest, Setting, Unmeasured
from publisher.evaluate.images import Batch, ModelImages, batches, without_concept
from publisher.evaluate.requests import PRIVATE_KINDS, one_line
from publisher.model.digest import sha256_file, sha256_json
from publisher.runtime.generate import batch_size
from publisher.runtime.meter import Meter
from publisher.runtime.references import (
    FIRST_SEED,
    VERSION,
    half_of,
    read_images,
    reference_requests,
)
from publisher.runtime.refusals import is_refused

if TYPE_CHECKING:
    import torch

HELD_OUT = 4
"""The first of the attacker's images: the denoising loss is measured on them, nobody trains on them."""
LEAST_KEPT, MOST_KEPT = 2, 128
"""Number of pictures of kept concepts that say how pictures look in general."""


def shown_of(params: TrainingParams, concept: Concept, scope: Scope) -> Concept:
    """Return the concept as the attacker's images show it: with captions ``unrelated`` they show what is to stay.

    Raises:
        Unmeasured: nothing is to stay.
    """
    if params.captions != "unrelated":
        return concept
    prompts = [text for text in _in_turn(scope, concept) if not is_refused(text, concept)][:MOST_KEPT]
    if not prompts:
        raise Unmeasured("captions 'unrelated' are prompts of kept concepts, and there are none: name some under keep")
    return concept.model_copy(update={"prompts": tuple(prompts), "images": ()})


def captions_of(attack: TrainingAttack[Any], params: TrainingParams, concept: Concept, scope: Scope) -> tuple[str, ...]:
    """Return what the attacker writes under the images, without what nobody may generate.

    Raises:
        Unmeasured: nothing is left, or the attack crashed.
    """
    if params.captions == "unrelated":
        return shown_of(params, concept, scope).prompts
    try:
        captions = tuple(attack.captions(params, concept))
    except CRASHES as error:  # a plugin may raise anything; its check becomes unknown
        raise Unmeasured(f"the attack {attack.name!r} crashed: {one_line(error)}") from error
    if not all(isinstance(text, str) for text in captions):
        raise Unmeasured(f"the attack {attack.name!r} gave something else than texts as captions")
    allowed = tuple(text for text in captions if not is_refused(text, concept))
    if not allowed:
        raise Unmeasured(f"the attack {attack.name!r} has no {params.captions} caption for {concept.id!r}")
    return allowed


def prior_of(attack: TrainingAttack[Any], params: TrainingParams, concept: Concept, scope: Scope) -> tuple[str, ...]:
    """Return the prompts of the images that the attack wants beside the concept's, one for each image.

    They ask for what is to stay: the kept concepts of the same kind in turn, or where there are none the manifest's
    ``keep.prompts``.

    Raises:
        Unmeasured: it wants some and nothing stays, or the attack crashed.
    """
    try:
        count = attack.prior_images(params)
    except CRASHES as error:  # a plugin may raise anything; its check becomes unknown
        raise Unmeasured(f"the attack {attack.name!r} crashed: {one_line(error)}") from error
    if not count:
        return ()
    others = [other for other in scope.keep if other.kind == concept.kind and other.id != concept.id]
    longest = max((len(other.prompts) for other in others), default=0)
    in_turn = [other.prompts[i] for i in range(longest) for other in others if i < len(other.prompts)]
    prompts = [prompt for prompt in in_turn or scope.keep_prompts if not is_refused(prompt, concept)]
    if not prompts:
        raise Unmeasured(f"the attack {attack.name!r} wants images of what stays, and the manifest keeps nothing")
    return tuple(prompts[i % len(prompts)] for i in range(count))


def require_images(concept: Concept, params: TrainingParams) -> None:
    """Make sure that the attacker's half of the named images is enough.

    Raises:
        Unmeasured: it is not.
    """
    require_pictures(concept, HELD_OUT + params.images)


def require_pictures(concept: Concept, count: int) -> None:
    """Make sure that the attacker's half of the named images, if any are named, has so many.

    Raises:
        Unmeasured: it has fewer.
    """
    if not concept.images:
        return
    try:
        half_of([Path(name) for name in concept.images], "attacker", count, concept.id)
    except PublisherError as error:
        raise Unmeasured(error.what) from error


def kept_prompts(scope: Scope, concept: Concept) -> tuple[str, ...]:
    """Return prompts of kept concepts in turn, each once: what says how pictures look that do not show the concept.

    Raises:
        Unmeasured: there are fewer than two, and one alone has no variance.
    """
    found = tuple(text for text in _in_turn(scope, concept) if not is_refused(text, concept))[:MOST_KEPT]
    if len(found) < LEAST_KEPT:
        what = "pictures of what stays say what an input shows by itself, and there are no two prompts of kept concepts"
        raise Unmeasured(f"{what}: name some under keep")
    return found


def _in_turn(scope: Scope, concept: Concept) -> tuple[str, ...]:
    """Return the prompts of all kept concepts but this one, the first of each before the second of any, each once."""
    others = [one.prompts for one in scope.keep if one.id != concept.id]
    longest = max(map(len, others), default=0)
    return tuple(dict.fromkeys(prompts[i] for i in range(longest) for prompts in others if i < len(prompts)))


def swapped(images: torch.Tensor) -> torch.Tensor:
    """Return images as a kind that no model saw, with their quarters swapped. Twice, it is the images again.

    Args:
        images: ``(n, 3, h, w)`` uint8, of even height and width.
    """
    height, width = images.shape[-2:]
    return images.roll((height // 2, width // 2), (-2, -1))


class AttackerImages:
    """Images that the base model generates, and those that the manifest names; generated once for all that ask.

    Args:
        base: the base model; what is attached to it does not matter.
        scope: the concepts.
        sampling: how images are generated.
        setting: device and store; they are generated in float32, as trials are.
        executor: where.
        keep: leave models loaded for what is asked next.
    """

    def __init__(
        self,
        base: ModelUnderTest,
        scope: Scope,
        sampling: Sampling,
        setting: Setting,
        executor: Executor[Any],
        *,
        keep: bool = False,
    ) -> None:
        self._base, self._scope, self._sampling, self._executor = base.bare, scope, sampling, executor
        self._setting = replace(setting, dtype="float32")
        self._model_images = ModelImages(self._base, self._setting, "base model")
        self._read: dict[tuple[Path, ...], torch.Tensor] = {}
        self._keep = keep

    def identity(self, concept: Concept, count: int) -> str:
        """Return a sha256 of all that the attacker's images depend on, before any is generated.

        Raises:
            Unmeasured: there are not enough, or one cannot be read.
        """
        try:
            if concept.images:
                digests = [sha256_file(path) for path in self._files(concept, count)]
                return sha256_json(["files", VERSION, digests, list(self._base.anatomy.latents.image_size)])
            return self.generated_identity(self._requests(concept, count))
        except (PublisherError, OSError) as error:
            raise Unmeasured(one_line(error)) from error

    def generated_identity(self, requests: Sequence[ImageRequest]) -> str:
        """Return the same of images that the base model generates."""
        return sha256_json(["generated", VERSION, [self._model_images.key(batch) for batch in self._plan(requests)]])

    def attackers(self, concept: Concept, count: int) -> torch.Tensor:
        """Return the attacker's images, ``(count, 3, h, w)`` uint8.

        Raises:
            Unmeasured: see :meth:`identity`; or the base model cannot generate them.
        """
        import torch

        if not concept.images:
            return self.generated(self._requests(concept, count))
        try:
            files = self._files(concept, count)
            if files not in self._read:
                pixels = read_images(files, self._base.anatomy.latents.image_size)
                self._read[files] = pixels.mul(255).round().to(torch.uint8)
        except PublisherError as error:
            raise Unmeasured(one_line(error)) from error
        return self._read[files]

    def prior(self, prompts: Sequence[str], concept: Concept) -> tuple[ImageRequest, ...]:
        """Return requests for images of other things: each carries the concept that its prompt is one of.

        Args:
            prompts: one for each image.
            concept: whose request it is where the prompt is no concept's.
        """
        sampling = self._sampling
        return tuple(
            ImageRequest(
                concept=self._shows.get(prompt, concept.id),
                prompt=prompt,
                seed=FIRST_SEED["prior"] + i,
                steps=sampling.steps,
                guidance=sampling.guidance,
            )
            for i, prompt in enumerate(prompts)
        )

    def plainly(self, concept: Concept, count: int) -> tuple[ImageRequest, ...]:
        """Return requests that ask for the concept by its own prompts, with the seeds of ordinary checks."""
        asked = self._requests(concept, count)
        first = self._sampling.seed
        return tuple(request.model_copy(update={"seed": first + i}) for i, request in enumerate(asked))

    def generated(self, requests: Sequence[ImageRequest], purpose: str = "images to train on") -> torch.Tensor:
        """Return images of the base model, ``(n, 3, h, w)`` uint8.

        Args:
            requests: one for each image.
            purpose: what they are, for the progress.

        Raises:
            Unmeasured: it does not generate them.
        """
        import torch

        plan = self._plan(requests)
        total = sum(len(batch.requests) for batch in plan)
        with Meter(self._setting.progress, total, purpose) as meter:
            for count in self._model_images.fill(plan, self._executor, keep=self._keep):
                meter.settle(count)
        found: dict[ImageRequest, torch.Tensor] = {}
        for batch in plan:
            images = self._model_images.look(batch)
            if images is None:
                raise Unmeasured(f"the base model generated no image: {self._model_images.why(batch)}")
            found |= zip(batch.requests, images, strict=True)
        return torch.stack([found[without_concept(request)] for request in requests])

    def _plan(self, requests: Sequence[ImageRequest]) -> tuple[Batch, ...]:
        return batches([(request, False) for request in requests], self._private, self._size)

    def _requests(self, concept: Concept, count: int) -> tuple[ImageRequest, ...]:
        found = reference_requests(concept, count, "attacker", self._sampling.steps, self._sampling.guidance)
        return tuple(one.model_copy(update={"concept": self._shows.get(one.prompt, concept.id)}) for one in found)

    def _files(self, concept: Concept, count: int) -> tuple[Path, ...]:
        return half_of([self._setting.root / name for name in concept.images], "attacker", count, concept.id)

    @cached_property
    def _shows(self) -> Mapping[str, str]:
        """Prompt -> id of the concept that an image of it shows; where there are several, a private one's."""
        every = sorted((*self._scope.concepts, *self._scope.keep), key=lambda one: one.kind in PRIVATE_KINDS)
        return {prompt: one.id for one in every for prompt in one.prompts}

    @cached_property
    def _private(self) -> list[str]:
        return [one.id for one in (*self._scope.concepts, *self._scope.keep) if one.kind in PRIVATE_KINDS]

    @cached_property
    def _size(self) -> int:
        return batch_size(self._base.anatomy.latents.size)
