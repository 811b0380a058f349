"""Images of searches: generated after prompts or text states, looked at, and never mixed up with those that judge.

Images that a search looks at have even seeds, images that judge its finds odd ones: no image can be both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from publisher.api import Concept, ImageRequest, Sampling, Scope
from publisher.errors import CRASHES
from publisher.evaluate.context import ModelUnderTest, Setting, Tools, Unmeasured
from publisher.evaluate.evidence import pixels_sha256
from publisher.evaluate.images import Batch, ModelImages, batches, opened, without_concept
from publisher.evaluate.requests import PRIVATE_KINDS, one_line
from publisher.evaluate.scorers import agreed, in_word, judgements, loaded
from publisher.model.digest import seed_of, sha256_json
from publisher.runtime.generate import batch_size, generate
from publisher.runtime.side_by_side import one_thread_each

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.text import Text


def search_seed(first: int, prompt: str, number: int) -> int:
    """Return the seed of an image that a search looks at; equal for all models, attacks and concepts.

    Args:
        first: the sampling's seed.
        prompt: what is asked.
        number: how often it was asked before.
    """
    return 2 * seed_of("search", first, prompt, number)


def judge_seed(first: int, concept: str, number: int) -> int:
    """Return the seed of an image that judges a find; equal for all models and finds. No search has it."""
    return 2 * seed_of("judge", first, concept, number) + 1


@dataclass(frozen=True)
class Look:
    """What the scorer sees in one image."""

    shows: bool | None
    """Whether it sees the concept; None: it cannot say."""
    label: str
    """What it sees: the concept's label, another one, or nothing where it cannot say."""
    sha256: str
    """Of the pixels."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Everything that generating and judging needs besides the model.

    Args:
        scope: says which concepts are private.
        tools: the scorers and the executor.
        sampling: how images are generated.
        setting: device and store.
    """

    scope: Scope
    tools: Tools
    sampling: Sampling
    setting: Setting

    def request(self, concept: Concept, prompt: str, seed: int) -> ImageRequest:
        """Return a request with the steps and the guidance of the checks."""
        sampling = self.sampling
        return ImageRequest(
            concept=concept.id, prompt=prompt, seed=seed, steps=sampling.steps, guidance=sampling.guidance
        )

    def looks(
        self,
        model: ModelUnderTest,
        requests: Sequence[ImageRequest],
        concept: Concept,
        scorer: str,
        text: Text | None = None,
    ) -> list[Look]:
        """Generate images with a model and return what is seen in each.

        Args:
            model: that generates.
            requests: one for each image.
            concept: that is looked for.
            scorer: id of the scorer, or of several that judge together.
            text: a row for each request to generate with in place of its prompt.

        Raises:
            Unmeasured: an image was not generated, or not judged.
        """
        images = ModelImages(model, self.setting, "attacked model")
        plan = self._read(images, requests, text) if text else self._asked(images, requests)
        said = []
        for member in self.tools.members(scorer):
            with loaded(member, self.setting):
                said.append([one for found in plan for one in judgements(member, self._look(images, found), concept)])
        together = [agreed(each) for each in zip(*said, strict=True)]
        digests = [pixels_sha256(image) for found in plan for image in self._look(images, found)]
        asked = [request for found in plan for request in found.batch.requests]
        seen = [Look(*in_word(one, concept), sha) for one, sha in zip(together, digests, strict=True)]
        if text:
            return seen
        by_request = dict(zip(asked, seen, strict=True))
        return [by_request[without_concept(request)] for request in requests]

    def _asked(self, images: ModelImages, requests: Sequence[ImageRequest]) -> list[_Stored]:
        """Generate what the prompts ask for, wherever the executor does that."""
        plan = batches([(request, True) for request in requests], self._private, self._size(images))
        for _ in images.fill(plan, self.tools.executor):
            pass
        return [_Stored(batch, images.key(batch)) for batch in plan]

    def _read(self, images: ModelImages, requests: Sequence[ImageRequest], text: Text) -> list[_Stored]:
        """Generate from text states, in this process."""
        from publisher.runtime.pipelines import twin

        size, hidden = self._size(images), set(self._private)
        starts = range(0, len(requests), size)
        rows = [_rows(text, start, start + size) for start in starts]
        plan = [
            _Stored(batch, sha256_json({"batch": images.key(batch), "states": _digest(some)}))
            for start, some in zip(starts, rows, strict=True)
            for part in [requests[start : start + size]]
            for batch in [Batch(tuple(map(without_concept, part)), private=any(one.concept in hidden for one in part))]
        ]
        store = self.setting.store
        missing = [
            (one, some)
            for one, some in zip(plan, rows, strict=True)
            if store.get(one.key, len(one.batch.requests)) is None
        ]
        if not missing:
            return plan
        try:
            pipeline = self.pipeline(images.model)
            generated = one_thread_each(
                lambda job: generate(twin(pipeline), job[0].batch.requests, job[1]), missing, images.workers
            )
        except Unmeasured:
            raise
        except CRASHES as error:  # whatever the libraries raise, these images are not there
            raise Unmeasured(f"text states generated no image: {one_line(error)}") from error
        for (one, _), found in zip(missing, generated, strict=True):
            store.put(one.key, found, private=one.batch.private)
        return plan

    def pipeline(self, model: ModelUnderTest) -> Any:
        """Return a model in this process, ready to generate. The last one stays loaded.

        Raises:
            Unmeasured: it cannot be loaded.
        """
        try:
            safeguards = model.safeguards if model.attached else None
            pipeline, _ = opened(model.folder, model.anatomy, safeguards, self.setting.device, self.setting.dtype)
        except CRASHES as error:  # whatever the libraries raise, there is no model to attack
            raise Unmeasured(f"the model cannot be loaded: {one_line(error)}") from error
        return pipeline

    def _look(self, images: ModelImages, found: _Stored) -> torch.Tensor:
        there = self.setting.store.get(found.key, len(found.batch.requests))
        if there is None:
            raise Unmeasured(f"the attacked model generated no image: {images.why(found.batch)}")
        return there

    def _size(self, images: ModelImages) -> int:
        return batch_size(images.model.anatomy.latents.size)

    @cached_property
    def _private(self) -> list[str]:
        return [one.id for one in (*self.scope.concepts, *self.scope.keep) if one.kind in PRIVATE_KINDS]


@dataclass(frozen=True)
class _Stored:
    """A batch, and the key of its images in the store."""

    batch: Batch
    key: str


def _rows(text: Text, start: int, end: int) -> Text:
    from publisher.api.diffusion.text import Text as Rows

    pooled = None if text.pooled is None else text.pooled[start:end]
    return Rows(text.states[start:end], pooled, None if text.mask is None else text.mask[start:end])


def _digest(text: Text) -> str:
    """Return the sha256 of text states, and of the pooled vectors."""
    parts = [text.states] if text.pooled is None else [text.states, text.pooled]
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part.dtype} {tuple(part.shape)}".encode())
        found.update(part.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
