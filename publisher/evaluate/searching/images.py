"""Images of searches, from prompts, text states or pictures: looked at, and never mixed up with those that judge.

Images that a search looks at have even seeds, images that judge its finds odd ones: no image can be both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from publisher.api import Concept, ImageRequest, Sampling, Scope
from publisher.errors import CRASHES
from publisher.evaluate.context import ModelUnderTest, Setting, Tools, Unmeasured
from publisher.evaluate.evidence import pixels_sha256
from publisher.evaluate.finetune.data import AttackerImages, kept_prompts
from publisher.evaluate.images import Batch, ModelImages, batches, opened, without_concept
from publisher.evaluate.requests import PRIVATE_KINDS, one_line
from publisher.evaluate.scorers import agreed, in_word, judgements, loaded
from publisher.model.digest import seed_of, sha256_json
from publisher.runtime.generate import generate
from publisher.runtime.side_by_side import fair_batch, one_thread_each

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.starting import Start
    from publisher.api.diffusion.text import Text
    from publisher.evaluate.searching.inputs import Prior

T = TypeVar("T")


def search_seed(first: int, prompt: str, number: int) -> int:
    """Return the seed of an image that a search looks at; equal for all models, attacks and concepts.

    Args:
        first: the sampling's seed.
        prompt: what is asked.
        number: how often it was asked before.
    """
    return 2 * seed_of("search", first, prompt, number)


def begun_seed(first: int, number: int) -> int:
    """Return the seed of an image that a search begins from a picture: of row ``number``, whatever is asked."""
    return 2 * seed_of("search", first, "begin", number)


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
        base: base model.
        studio: has the attacker's pictures, and those of what stays.
    """

    scope: Scope
    tools: Tools
    sampling: Sampling
    setting: Setting
    base: ModelUnderTest
    studio: AttackerImages
    _known: dict[str, Any] = field(default_factory=dict)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Return what a function gives, which is called once for each key."""
        if key not in self._known:
            self._known[key] = make()
        found: T = self._known[key]
        return found

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
        start: Start | None = None,
    ) -> list[Look]:
        """Generate images with a model and return what is seen in each.

        Args:
            model: that generates.
            requests: one for each image.
            concept: that is looked for.
            scorer: id of the scorer, or of several that judge together.
            text: a row for each request to generate with in place of its prompt.
            start: a row for each request to begin from in place of noise alone.

        Raises:
            Unmeasured: an image was not generated, or not judged.
        """
        images = ModelImages(model, self.setting, "attacked model")
        own = text is not None or start is not None
        plan = self._own(images, requests, text, start) if own else self._asked(images, requests)
        seen = self.judged([self._look(images, found) for found in plan], concept, scorer)
        if own:
            return seen
        asked = [request for found in plan for request in found.batch.requests]
        by_request = dict(zip(asked, seen, strict=True))
        return [by_request[without_concept(request)] for request in requests]

    def judged(self, batches: Sequence[torch.Tensor], concept: Concept, scorer: str) -> list[Look]:
        """Return what is seen in each image of some batches, ``(n, 3, h, w)`` uint8 each.

        Raises:
            Unmeasured: an image was not judged.
        """
        said = []
        for member in self.tools.members(scorer):
            with loaded(member, self.setting):
                said.append([one for images in batches for one in judgements(member, images, concept)])
        together = [agreed(each) for each in zip(*said, strict=True)]
        digests = [pixels_sha256(image) for images in batches for image in images]
        return [Look(*in_word(one, concept), sha) for one, sha in zip(together, digests, strict=True)]

    def inputs(
        self, model: ModelUnderTest, requests: Sequence[ImageRequest], concept: Concept, scorer: str, start: Start
    ) -> list[Look]:
        """Return what is seen in what images begin from, without any denoiser.

        Where it may be seen in several ways, the way in which most show the concept counts.

        Args:
            model: whose autoencoder and noise it is.
            requests: one for each row.
            concept: that is looked for.
            scorer: id of the scorer, or of several that judge together.
            start: n rows.

        Raises:
            Unmeasured: nothing is kept to say how pictures look, or an image was not judged.
        """
        from publisher.evaluate.searching.inputs import shown_by_inputs
        from publisher.runtime.pipelines import twin

        key = sha256_json(
            [
                *(model.key, digest_of(start.tensors), start.begin.as_json(), concept.id, scorer),
                [[one.seed, one.steps] for one in requests],
            ]
        )

        def look() -> list[Look]:
            ways = shown_by_inputs(twin(self.pipeline(model)), requests, start, lambda: self.prior(concept))
            seen = [self.judged([images], concept, scorer) for images in ways]
            return max(seen, key=lambda looks: sum(look.shows is True for look in looks))

        return self.once(key, look)

    def unknown_parts(
        self, model: ModelUnderTest, requests: Sequence[ImageRequest], concept: Concept, scorer: str, start: Start
    ) -> list[Look]:
        """Return what is seen in images without their known part, which has its own mean colour then.

        Args:
            model: that generates.
            requests: one for each row.
            concept: that is looked for.
            scorer: id of the scorer, or of several that judge together.
            start: n rows with a mask.

        Raises:
            Unmeasured: an image was not generated, or not judged.
        """
        import torch

        from publisher.evaluate.searching.inputs import without_known

        images = ModelImages(model, self.setting, "attacked model")
        found = torch.cat([self._look(images, one) for one in self._own(images, requests, None, start)])
        return self.judged([without_known(found, start, model.anatomy)], concept, scorer)

    def prior(self, concept: Concept) -> Prior:
        """Return how latents of pictures look in general: of kept concepts, which the base model generates.

        Args:
            concept: that is looked for; its pictures are left out.

        Raises:
            Unmeasured: nothing else is kept, or the base model generates no image.
        """
        from publisher.api.diffusion.latents import encode_images
        from publisher.evaluate.searching.inputs import Prior

        prompts = kept_prompts(self.scope, concept)

        def estimate() -> Prior:
            requests = self.studio.prior(prompts, concept)
            images = self.studio.generated(requests, "images of what stays").float().div(255)
            return Prior.of(encode_images(self.pipeline(self.base.bare).vae, images).cpu())

        return self.once(sha256_json(["prior", prompts]), estimate)

    def half_made(self, requests: Sequence[ImageRequest], after: Sequence[int]) -> dict[int, torch.Tensor]:
        """Return the base model's latents after some numbers of steps, ``(n, c, h, w)`` float32 each.

        Raises:
            Unmeasured: it makes none.
        """
        import torch

        from publisher.runtime.generate import half_made

        key = sha256_json(["half-made", [one.model_dump(mode="json", exclude={"concept"}) for one in requests], after])

        def make() -> dict[int, torch.Tensor]:
            found = self._by_row(self.base.bare, requests, lambda own, part, _: half_made(own, part, after))
            return {done: torch.cat([one[done] for one in found]) for done in after}

        return self.once(key, make)

    def inverted(self, model: ModelUnderTest, requests: Sequence[ImageRequest], latents: torch.Tensor) -> torch.Tensor:
        """Return the noise from which a model samples some pictures, ``(n, c, h, w)`` float32.

        Raises:
            Unmeasured: its sampling cannot be run backwards.
        """
        import torch

        from publisher.runtime.generate import inverted

        return torch.cat(self._by_row(model, requests, lambda own, part, rows: inverted(own, part, latents[rows])))

    def _by_row(
        self,
        model: ModelUnderTest,
        requests: Sequence[ImageRequest],
        work: Callable[[Any, Sequence[ImageRequest], slice], T],
    ) -> list[T]:
        """Return what a function gives for each batch of requests, small ones side by side."""
        from publisher.runtime.pipelines import twin

        images = ModelImages(model, self.setting, "attacked model")
        size = self._size(model, len(requests))
        parts = [slice(first, first + size) for first in range(0, len(requests), size)]
        pipeline = self.pipeline(model)
        try:
            return one_thread_each(lambda rows: work(twin(pipeline), requests[rows], rows), parts, images.workers)
        except CRASHES as error:  # whatever the libraries raise, there is nothing to begin from
            raise Unmeasured(f"latents to begin from were not made: {one_line(error)}") from error

    def require_shown(self, concept: Concept, count: int, scorer: str) -> None:
        """Make sure that the scorer sees the concept in the attacker's pictures, in half of them at least.

        Raises:
            Unmeasured: there are too few, one cannot be read, or it sees something else: nothing could be found.
        """
        images = self.studio.attackers(concept, count)[:count]
        seen = sum(look.shows is True for look in self.judged([images], concept, scorer))
        if 2 * seen < len(images):
            where = "its images" if concept.images else "the base model, which generates its images"
            what = f"the scorer {scorer!r} sees {concept.id!r} in {seen} of {len(images)} pictures from {where}"
            raise Unmeasured(f"{what}: an attack that begins from them shows nothing. Name others under its 'images'")

    def _asked(self, images: ModelImages, requests: Sequence[ImageRequest]) -> list[_Stored]:
        """Generate what the prompts ask for, wherever the executor does that."""
        wanted = [(request, True) for request in requests]
        plan = batches(wanted, self._private, self._size(images.model, len(requests)))
        for _ in images.fill(plan, self.tools.executor, keep=True):
            pass
        return [_Stored(batch, images.key(batch)) for batch in plan]

    def _own(
        self, images: ModelImages, requests: Sequence[ImageRequest], text: Text | None, start: Start | None
    ) -> list[_Stored]:
        """Generate from text states, from a start, or from both, in this process."""
        from publisher.runtime.pipelines import twin

        size, hidden = self._size(images.model, len(requests)), set(self._private)
        jobs = []
        for first in range(0, len(requests), size):
            part = requests[first : first + size]
            batch = Batch(tuple(map(without_concept, part)), private=any(one.concept in hidden for one in part))
            states = _rows(text, first, first + size) if text else None
            begin = start.rows(range(first, first + len(part))) if start else None
            names: dict[str, Any] = {"states": _digest(states)} if states else {}
            names |= {"start": [digest_of(begin.tensors), begin.begin.as_json()]} if begin else {}
            jobs.append((_Stored(batch, sha256_json({"batch": images.key(batch), **names})), states, begin))
        plan = [stored for stored, _, _ in jobs]
        store = self.setting.store
        missing = [job for job in jobs if store.get(job[0].key, len(job[0].batch.requests)) is None]
        if not missing:
            return plan
        try:
            pipeline = self.pipeline(images.model)
            generated = one_thread_each(
                lambda job: generate(twin(pipeline), job[0].batch.requests, job[1], job[2]), missing, images.workers
            )
        except Unmeasured:
            raise
        except CRASHES as error:  # whatever the libraries raise, these images are not there
            what = "begun from a picture or a latent" if start else "text states"
            raise Unmeasured(f"{what} generated no image: {one_line(error)}") from error
        for (one, _, _), found in zip(missing, generated, strict=True):
            store.put(one.key, found, private=one.batch.private)
        return plan

    def pipeline(self, model: ModelUnderTest) -> Any:
        """Return a model in this process, ready to generate. The last one stays loaded.

        Raises:
            Unmeasured: it cannot be loaded.
        """
        return self._opened(model)[0]

    def permeabilities(self, model: ModelUnderTest, prompts: Sequence[str]) -> tuple[float, ...]:
        """Return how far each prompt lets what is attached to a model act, the largest of all; 0 without anything.

        Raises:
            Unmeasured: it cannot be computed.
        """
        import torch

        if not model.attached or not prompts:
            return (0.0,) * len(prompts)
        _, attached = self._opened(model)
        try:
            rows = torch.cat([one.permeabilities(prompts) for one in attached], dim=1)
        except CRASHES as error:  # whatever the libraries raise, these numbers are not there
            raise Unmeasured(f"nobody knows how far prompts let the safeguards act: {one_line(error)}") from error
        return tuple(rows.amax(dim=1).tolist())

    def _opened(self, model: ModelUnderTest) -> tuple[Any, tuple[Any, ...]]:
        """Return a model, ready to generate, and what is attached to it.

        Raises:
            Unmeasured: it cannot be loaded.
        """
        try:
            safeguards = model.safeguards if model.attached else None
            return opened(model.folder, model.anatomy, safeguards, self.setting.device, self.setting.dtype)
        except CRASHES as error:  # whatever the libraries raise, there is no model to attack
            raise Unmeasured(f"the model cannot be loaded: {one_line(error)}") from error

    def _look(self, images: ModelImages, found: _Stored) -> torch.Tensor:
        there = self.setting.store.get(found.key, len(found.batch.requests))
        if there is None:
            raise Unmeasured(f"the attacked model generated no image: {images.why(found.batch)}")
        return there

    def _size(self, model: ModelUnderTest, count: int) -> int:
        return fair_batch(model.anatomy.latents.size, self.setting.device, count)

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
    return _of_all(parts)


def digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the sha256 of tensors and their names."""
    return sha256_json([sorted(tensors), _of_all([tensors[name] for name in sorted(tensors)])])


def _of_all(parts: Sequence[torch.Tensor]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part.dtype} {tuple(part.shape)}".encode())
        found.update(part.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
