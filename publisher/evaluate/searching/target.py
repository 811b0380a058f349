"""The model as a search may touch it: no more than the attack's access gives, and never more than its limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from publisher.api import (
    SLOT,
    Access,
    AccessDeniedError,
    BudgetSpent,
    CandidateRefused,
    Find,
    ImageRequest,
    Limits,
    SearchTarget,
    Shown,
    TensorFile,
)
from publisher.api.concepts import Concept
from publisher.api.families import Anatomy, denoiser_of
from publisher.errors import ModelError
from publisher.evaluate.context import ModelUnderTest, Unmeasured
from publisher.evaluate.finetune.data import AttackerImages
from publisher.evaluate.requests import PRIVATE_KINDS
from publisher.evaluate.searching.images import Gallery, begun_seed, search_seed
from publisher.runtime.refusals import is_refused, is_refused_candidate

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.denoiser import Denoiser
    from publisher.api.diffusion.latents import Noising
    from publisher.api.diffusion.starting import Start
    from publisher.api.diffusion.text import Text

PROJECTIONS = ("to_k", "to_v")
COARSE = 4
"""Sampling steps of an image that is looked at coarsely, at least."""
ROWS = 64
"""Rows that go through the denoiser at once where no gradient is asked for."""


@dataclass(eq=False)
class MeteredTarget(SearchTarget):
    """A model under attack.

    Args:
        model: that is attacked.
        base: base model, for attacks with access *base*.
        goal: concept that is looked for in images.
        scorer: id of the scorer that sees it.
        grants: access of the attack.
        limits: most that it may spend.
        gallery: generates and judges.
        studio: has the pictures of concepts.
        aim: concept that the attack is told, whose pictures it gets.
        permuted: give the base model's matrices in another order.
    """

    model: ModelUnderTest
    base: ModelUnderTest
    goal: Concept
    scorer: str
    grants: frozenset[Access]
    limits: Limits
    gallery: Gallery
    studio: AttackerImages
    aim: Concept
    permuted: bool = False
    kept: Concept | None = None
    """Kept concept that reads most like the one that goes."""
    counts: bool = True
    """Whether images of the goal count as hits."""
    spent: Limits = field(default_factory=Limits)
    """What was spent."""
    tried: int = 0
    """Images that were looked at."""
    hits: int = 0
    """Those of them that showed the concept of the check."""
    input_hits: int | None = None
    """Those of them that began from what shows the concept by itself; None: they began from noise."""
    refused: set[str] = field(default_factory=set)
    """Texts that nobody may generate: counted, never stored."""
    _asked: Counter[tuple[str, str | None, float | None]] = field(default_factory=Counter)

    def allows(self, text: str) -> bool:
        """Return whether a text may be tried."""
        if is_refused_candidate(text, self.goal):
            self.refused.add(text)
            return False
        return True

    def named(self, text: str) -> bool:
        """Return whether a text names one of the concepts that go."""
        words = text.casefold().split()
        gone = self.gallery.scope.concepts
        names = {name.casefold() for one in gone for name in (one.name, *one.synonyms, one.label)}
        return text.casefold() in names or any(part in words for name in names for part in name.split())

    def ask(
        self,
        prompts: Sequence[str],
        negative_prompt: str = "",
        guidance: float | None = None,
        *,
        coarse: bool = False,
    ) -> tuple[bool, ...]:
        """Generate an image for each prompt and return whether it shows the concept."""
        self._require_allowed([*prompts, negative_prompt])
        changed: dict[str, Any] = {"negative_prompt": negative_prompt} if negative_prompt else {}
        if guidance is not None:
            changed["guidance"] = guidance
        if coarse:
            steps = self.gallery.sampling.steps
            changed["steps"] = min(steps, max(COARSE, -(-steps // 2)))
        return self._shown(prompts, None, changed)

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text, without special tokens."""
        return tuple(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def typed(self, find: Find) -> Find:
        """Return a find of text with the ids that the encoders are given of it; any other one as it is.

        Raises:
            ValueError: its text stands for special tokens, which nobody types.
        """
        if find.kind != "text":
            return find
        special = _special(self._tokenizer)
        plain = tuple(self.tokens(prompt) for prompt in find.prompts)
        if any(special.intersection(ids) for ids in plain):
            raise ValueError("the text of a find stands for special tokens of the tokenizer")
        pipeline, anatomy = self.gallery.pipeline(self.model), self.model.anatomy
        given = tuple(anatomy.read_ids(pipeline, prompt) for prompt in find.prompts)
        chosen = tuple(ids for rows in find.token_ids for ids in rows[:1])
        return find.model_copy(update={"token_ids": given, "typeable": not chosen or chosen == plain})

    def words(self) -> tuple[str, ...]:
        """Return the words of the vocabulary that can be typed, in its order."""
        self._require(Access.SEARCH, "words")
        return tuple(filter(self.allows, self.gallery.once(f"words {self.model.key}", self._words)))

    def _words(self) -> tuple[str, ...]:
        tokenizer = self._tokenizer
        texts = [(number, tokenizer.decode([number]).strip()) for number in range(len(tokenizer))]
        special = set(tokenizer.all_special_ids)
        found = [text for number, text in texts if number not in special and text and self.tokens(text) == (number,)]
        return tuple(dict.fromkeys(found))

    def permeabilities(self, prompts: Sequence[str]) -> tuple[float, ...]:
        """Return how far each prompt lets safeguards beside the weights act, the largest of all."""
        self._require(Access.SEARCH, "permeabilities")
        self._require_allowed(prompts)
        self._spend(Limits(encoder_rows=len(prompts)))
        return self.gallery.permeabilities(self.model, prompts)

    def encode(self, prompts: Sequence[str]) -> Text:
        """Return prompts as the denoiser reads them, float32, without gradients."""
        import torch

        self._require(Access.EMBEDDING, "encode")
        self._require_allowed(prompts)
        self._spend(Limits(encoder_rows=len(prompts)))
        with torch.no_grad():
            found = self.model.anatomy.read_text(self.gallery.pipeline(self.model), list(prompts))
        return found.to(torch.float32)

    def ask_states(self, text: Text, prompts: Sequence[str]) -> tuple[bool, ...]:
        """Generate an image for each row of text states and return whether it shows the concept."""
        self._require(Access.EMBEDDING, "ask_states")
        if len(text.states) != len(prompts):
            raise ValueError(f"{len(text.states)} rows of text states and {len(prompts)} prompts do not go together")
        self._require_allowed(prompts)
        return self._shown(prompts, text, {})

    def text_weights(self) -> tuple[torch.Tensor, ...]:
        """Return the matrices by which text enters the denoiser, ``(out, d)`` float32 each."""
        self._require(Access.EMBEDDING, "text_weights")
        return text_weights(self.gallery.pipeline(self.model))

    def base_text_weights(self) -> tuple[torch.Tensor, ...]:
        """Return the same matrices of the base model."""
        self._require(Access.BASE, "base_text_weights")
        found = text_weights(self.gallery.pipeline(self.base.bare))
        return _permuted(found) if self.permuted else found

    def token_embeddings(self) -> tuple[torch.Tensor, ...]:
        """Return the token embeddings of each text encoder, ``(tokens, d)`` float32."""
        from publisher.api.diffusion.vectors import token_embeddings

        self._require(Access.EMBEDDING, "token_embeddings")
        return token_embeddings(self._bare)

    def encode_vectors(self, prompts: Sequence[str], vectors: Sequence[torch.Tensor]) -> Text:
        """Return prompts as the denoiser reads them, with vectors in their slots, and gradients."""
        from publisher.api.diffusion.vectors import read_vectors

        self._require(Access.EMBEDDING, "encode_vectors")
        pipeline = self._bare
        self._require_allowed(prompts)
        self._require_harmless(prompts, vectors)
        self._spend(Limits(encoder_rows=len(prompts)))
        return read_vectors(pipeline, prompts, vectors)

    def slot_rows(self, prompt: str, count: int) -> tuple[int, ...]:
        """Return the positions of ``count`` vectors among the tokens of a prompt."""
        from publisher.api.diffusion.vectors import slot_rows

        self._require(Access.EMBEDDING, "slot_rows")
        return slot_rows(self._bare, prompt, count)

    def pictures(self, count: int) -> torch.Tensor:
        """Return latents of pictures of the concept that the search is made for."""
        from publisher.api.diffusion.latents import encode_images

        if not self.grants & {Access.IMAGE, Access.EMBEDDING}:
            self._require(Access.IMAGE, "pictures")
        pixels = self.studio.attackers(self.aim, count)
        return encode_images(self._bare.vae, pixels.float() / 255).cpu()

    def denoise(self, latents: torch.Tensor, noise: torch.Tensor, places: torch.Tensor, text: Text) -> torch.Tensor:
        """Return the loss that the model was trained with, of each row, ``(n,)`` float32."""
        import torch

        from publisher.api.diffusion.text import Text

        self._require(Access.EMBEDDING, "denoise")
        learns = torch.is_grad_enabled() and text.states.requires_grad
        self._spend(Limits(denoiser_rows=len(latents), gradient_steps=int(learns)))
        denoiser, noising = self._denoising
        x, e, t = (part.to(denoiser.device) for part in (latents, noise, noising.at(places)))
        size = len(x) if learns else ROWS
        losses = []
        for start in range(0, len(x), size):
            rows = slice(start, start + size)
            pooled, mask = (None if part is None else part[rows] for part in (text.pooled, text.mask))
            some = Text(text.states[rows], pooled, mask)
            losses.append(noising.loss(denoiser, x[rows], some, e[rows], t[rows]))
        return torch.cat(losses).cpu()

    def alternatives(self) -> tuple[str, ...]:
        """Return prompts of the kept concept that reads most like the one looked for."""
        return tuple(filter(self.allows, self.kept.prompts)) if self.kept else ()

    def latent_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of the model's latents."""
        latents = self.model.anatomy.latents
        return latents.channels, latents.height, latents.width

    def ask_from(
        self, start: Start, prompts: Sequence[str], steps: int | None = None, guidance: float | None = None
    ) -> Shown:
        """Generate an image for each row of a start, and return whether it shows the concept."""
        self._require(Access.IMAGE, "ask_from")
        if len(start.latents) != len(prompts):
            raise ValueError(f"{len(start.latents)} rows to begin from and {len(prompts)} prompts do not go together")
        self._require_allowed(prompts)
        self._spend(Limits(images=len(prompts)))
        requests = self._begun(prompts, steps=steps, guidance=guidance)
        looks = self.gallery.looks(self.model, requests, self.goal, self.scorer, start=start)
        shown = tuple(look.shows is True for look in looks)
        self.tried += len(prompts)
        self._count(shown)
        if start.begin.blank:
            return Shown(shown, (False,) * len(shown))
        alone = self.gallery.inputs(self.model, requests, self.goal, self.scorer, start)
        inputs = tuple(look.shows is True for look in alone)
        self.input_hits = (self.input_hits or 0) + sum(inputs)
        return Shown(shown, inputs)

    def half_made(self, prompts: Sequence[str], steps: int, after: Sequence[int]) -> Mapping[int, torch.Tensor]:
        """Return latents that the base model has after some of its steps."""
        self._require(Access.IMAGE, "half_made")
        self._require(Access.BASE, "half_made")
        self._require_allowed(prompts)
        guided = self.gallery.sampling.guidance > 1
        self._spend(Limits(denoiser_rows=len(prompts) * max(after) * (2 if guided else 1)))
        return self.gallery.half_made(self._begun(prompts, steps=steps), after)

    def inverted(self, latents: torch.Tensor, prompts: Sequence[str], steps: int) -> torch.Tensor:
        """Return the noise from which the model samples some pictures, ``(n, c, h, w)`` float32."""
        self._require(Access.IMAGE, "inverted")
        self._require_allowed(prompts)
        self._spend(Limits(denoiser_rows=len(prompts) * steps))
        return self.gallery.inverted(self.model, self._begun(prompts, steps=steps), latents)

    def _begun(self, prompts: Sequence[str], **changed: float | None) -> list[ImageRequest]:
        """Return requests whose noise depends on their row alone."""
        first, given = self.gallery.sampling.seed, {name: one for name, one in changed.items() if one is not None}
        return [
            self.gallery.request(self.goal, prompt, begun_seed(first, i)).model_copy(update=given)
            for i, prompt in enumerate(prompts)
        ]

    def keep(self, tensors: Mapping[str, torch.Tensor]) -> TensorFile:
        """Keep the tensors of a find; those of pictures of persons or of unsafe content in memory alone."""
        private = Access.IMAGE in self.grants and self.goal.kind in PRIVATE_KINDS
        return self.gallery.setting.vault.keep(tensors, private=private)

    def _shown(self, prompts: Sequence[str], text: Text | None, changed: Mapping[str, Any]) -> tuple[bool, ...]:
        if not prompts:
            return ()
        self._spend(Limits(images=len(prompts)))
        requests = []
        for prompt in prompts:
            asked = (prompt, changed.get("negative_prompt"), changed.get("guidance"))  # of no seed two images
            seed = search_seed(self.gallery.sampling.seed, prompt, self._asked[asked])
            self._asked[asked] += 1
            requests.append(self.gallery.request(self.goal, prompt, seed).model_copy(update=changed))
        looks = self.gallery.looks(self.model, requests, self.goal, self.scorer, text)
        shown = tuple(look.shows is True for look in looks)
        self.tried += len(shown)
        self._count(shown)
        return shown

    def _count(self, shown: Sequence[bool]) -> None:
        """Count the images that show what the check is about: none where a floor looked for something else."""
        if self.counts:
            self.hits += sum(shown)

    def _spend(self, more: Limits) -> None:
        """Count what is about to be spent; past the limits nothing is."""
        after = self.spent + more
        if not after.within(self.limits):
            raise BudgetSpent
        self.spent = after

    def _require(self, access: Access, method: str) -> None:
        if access not in self.grants:
            given = ", ".join(sorted(self.grants))
            what = f"the attack asks for {method!r}, which the access {access.value!r} gives"
            raise AccessDeniedError(f"{what}; it declares {given}", hint=f"Name Access.{access.name} in its grants.")

    def _require_allowed(self, prompts: Sequence[str]) -> None:
        if not all(map(self.allows, prompts)):
            raise CandidateRefused

    def _require_harmless(self, prompts: Sequence[str], vectors: Sequence[torch.Tensor]) -> None:
        """Refuse vectors that may stand for words which nobody may generate; a word's own count as that word.

        Raises:
            CandidateRefused: such words are near; or the concept is unsafe, and no word says whom a vector shows.
        """
        from publisher.api.diffusion.vectors import nearest_words, words_of

        if words := words_of(self._bare, vectors[0]):
            self._require_allowed([prompt.replace(SLOT, " ".join(words)) for prompt in prompts])
            return
        if self.goal.kind == "unsafe" or self.aim.kind == "unsafe":
            raise CandidateRefused
        near = [" ".join(words) for words in nearest_words(self._bare, vectors[0])]
        if any(is_refused(f"{prompt} {words}", self.goal) for prompt in prompts for words in near):
            raise CandidateRefused

    @cached_property
    def _denoising(self) -> tuple[Denoiser, Noising]:
        """The denoiser of the weights alone, and its process."""
        from publisher.api.diffusion.denoiser import Denoiser
        from publisher.api.diffusion.latents import Noising

        return Denoiser.of(self._bare), Noising.of(self._bare)

    @cached_property
    def _bare(self) -> Any:
        """The weights without what is attached to them, frozen."""
        from publisher.api.diffusion.learner import freeze_pipeline

        pipeline = self.gallery.pipeline(self.model.bare)
        freeze_pipeline(pipeline)
        return pipeline

    @property
    def _tokenizer(self) -> Any:
        encoders = self.model.anatomy.text_encoders
        if not encoders:
            raise Unmeasured("the model has no text encoder")
        return getattr(self.gallery.pipeline(self.model), encoders[0].tokenizer)


def _special(tokenizer: Any) -> set[int]:
    """Return the ids of special tokens; what stands for letters that nobody knows is none of them."""
    marks = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    return set(tokenizer.all_special_ids) - ({tokenizer.unk_token_id} - marks)


def text_weights(pipeline: Any) -> tuple[torch.Tensor, ...]:
    """Return the matrices by which text enters a denoiser, sorted by name, ``(out, d)`` float32 on the CPU.

    Raises:
        ModelError: text enters in another way.
    """
    anatomy, network = pipeline.anatomy, denoiser_of(pipeline)
    if type(anatomy).enter is not Anatomy.enter:
        raise ModelError("text goes through a norm or a projection before its matrices", where=anatomy.denoiser)
    weights = dict(network.named_parameters())
    names = [
        name
        for name in sorted(weights)
        if name in anatomy.text_entry
        or (
            anatomy.cross_attention
            and any(name.endswith(f".{anatomy.cross_attention}.{one}.weight") for one in PROJECTIONS)
        )
    ]
    if not names:
        raise ModelError("the denoiser has no matrices by which text enters", where=anatomy.denoiser)
    return tuple(weights[name].detach().float().cpu().clone() for name in names)


def _permuted(matrices: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return each matrix replaced by the next one of its shape; keys stand for values and layers for others."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, matrix in enumerate(matrices):
        groups.setdefault(tuple(matrix.shape), []).append(place)
    source = list(range(len(matrices)))
    for places in groups.values():
        for here, there in zip(places, (*places[1:], places[0]), strict=True):
            source[here] = there
    return tuple(matrices[place] for place in source)
