"""The model as an attack that searches may touch it: no more than its access gives, counted and refused."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from publisher.api.finds import TensorFile
from publisher.errors import PublisherError

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.starting import Start
    from publisher.api.diffusion.text import Text


class BudgetSpent(Exception):  # noqa: N818 - no error: it ends a search as planned
    """A search has used up what it may spend."""


class CandidateRefused(Exception):  # noqa: N818 - no error: it ends a search, which then says so
    """A search came to words that nobody may generate. They are neither encoded nor stored."""


class AccessDeniedError(PublisherError):
    """An attack asks for what the access that it declares does not give."""


@dataclass(frozen=True)
class Shown:
    """What the scorer sees in images that began from a picture or a latent."""

    images: tuple[bool, ...]
    """Whether each image shows the concept."""
    inputs: tuple[bool, ...]
    """Whether what it began from shows the concept without any denoiser."""


class SearchTarget(ABC):
    """The model that is attacked, as far as the attack's access goes, and its meter.

    Each method raises :class:`BudgetSpent` before it would spend more than the attack's limits,
    :class:`CandidateRefused` for a text that nobody may generate, and :class:`AccessDeniedError` where the attack's
    grants do not give it. An attack lets all of them pass.
    """

    @abstractmethod
    def allows(self, text: str) -> bool:
        """Return whether a text may be tried; what may not is counted, and a search leaves it out."""

    @abstractmethod
    def named(self, text: str) -> bool:
        """Return whether a text names one of the concepts that go, by name or synonym: finding it is no find."""

    @abstractmethod
    def ask(
        self,
        prompts: Sequence[str],
        negative_prompt: str = "",
        guidance: float | None = None,
        *,
        coarse: bool = False,
    ) -> tuple[bool, ...]:
        """Generate an image for each prompt and return whether it shows the concept. Every access.

        A prompt that is asked again in the same way gets another seed; asked in another way, with another negative
        prompt or guidance, it begins with the same ones. Many prompts at once are faster than one after the other.

        Args:
            prompts: n of them; the empty text is allowed.
            negative_prompt: what the images are to be unlike; empty: nothing.
            guidance: classifier-free guidance scale; None: the checks' own.
            coarse: sample half of the steps, at least four: enough to see which of many prompts to ask again. A prompt
                that is then asked in full gets another seed.
        """

    @abstractmethod
    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text, without special tokens, by the model's first tokenizer. Every access."""

    @abstractmethod
    def words(self) -> tuple[str, ...]:
        """Return the words of that tokenizer's vocabulary that can be typed, in its order. Access *search*.

        A word can be typed if its text is read as itself alone. Words that may not be tried are left out and counted.
        """

    @abstractmethod
    def permeabilities(self, prompts: Sequence[str]) -> tuple[float, ...]:
        """Return how far each prompt lets safeguards beside the weights act, the largest of all. Access *search*.

        0 leaves all of them shut. Where nothing is attached, every prompt has 0. An attacker who has the package can
        compute it without an image: the rule lies in it.
        """

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> Text:
        """Return prompts as the denoiser reads them, float32, without gradients. Access *embedding*."""

    @abstractmethod
    def ask_states(self, text: Text, prompts: Sequence[str]) -> tuple[bool, ...]:
        """Generate an image for each row of text states and return whether it shows the concept. Access *embedding*.

        Args:
            text: n rows in place of prompts.
            prompts: what each row was made from; they name the seeds.
        """

    @abstractmethod
    def text_weights(self) -> tuple[torch.Tensor, ...]:
        """Return the matrices by which text enters the denoiser, ``(out, d)`` float32 each. Access *embedding*.

        They are the keys and values of cross-attention, or the text entry of models without it, in one order.
        """

    @abstractmethod
    def base_text_weights(self) -> tuple[torch.Tensor, ...]:
        """Return the same matrices of the base model, in the same order. Access *base*."""

    @abstractmethod
    def token_embeddings(self) -> tuple[torch.Tensor, ...]:
        """Return the token embeddings of each text encoder, ``(tokens, d)`` float32. Access *embedding*."""

    @abstractmethod
    def encode_vectors(self, prompts: Sequence[str], vectors: Sequence[torch.Tensor]) -> Text:
        """Return prompts as the denoiser reads them, with vectors in their slots. Access *embedding*.

        Gradients reach the vectors. Vectors that are the token embeddings of words count as these words. Others that
        lie next to words which nobody may generate are refused, and so are others for unsafe concepts: no text says
        what they stand for.

        Args:
            prompts: n texts, each with :data:`publisher.api.SLOT` once.
            vectors: of each text encoder, ``(k, d)``.
        """

    @abstractmethod
    def slot_rows(self, prompt: str, count: int) -> tuple[int, ...]:
        """Return the positions of ``count`` vectors among the tokens of a prompt. Access *embedding*."""

    @abstractmethod
    def pictures(self, count: int) -> torch.Tensor:
        """Return latents of pictures of the concept that the search is made for. Access *image* or *embedding*.

        They are the attacker's half of the concept's ``images``, or where it names none images of the base model,
        encoded by the attacked model, ``(count, c, h, w)`` float32. Where something else is to be found in the
        pictures of a kept concept, they are those of the kept concept.
        """

    @abstractmethod
    def denoise(self, latents: torch.Tensor, noise: torch.Tensor, places: torch.Tensor, text: Text) -> torch.Tensor:
        """Return the loss that the model was trained with, of each row, ``(n,)`` float32. Access *embedding*.

        Gradients reach the text. A safeguard beside the weights takes no part.

        Args:
            latents: ``(n, c, h, w)`` of images.
            noise: of the same shape.
            places: ``(n,)`` in [0, 1), how far from the image to the noise.
            text: n rows.
        """

    @abstractmethod
    def alternatives(self) -> tuple[str, ...]:
        """Return prompts of the kept concept that reads most like the one looked for; empty: none is kept."""

    @abstractmethod
    def latent_shape(self) -> tuple[int, int, int]:
        """Return channels, height and width of the model's latents. Every access."""

    @abstractmethod
    def ask_from(
        self, start: Start, prompts: Sequence[str], steps: int | None = None, guidance: float | None = None
    ) -> Shown:
        """Generate an image for each row of a start, and return whether it shows the concept. Access *image*.

        Row i has the same noise whenever it is asked, so that prompts and settings are compared on equal terms.

        Args:
            start: n rows.
            prompts: n of them; the empty text is allowed.
            steps: number of sampling steps, those that are skipped among them; None: the checks' own.
            guidance: classifier-free guidance scale; None: the checks' own.
        """

    @abstractmethod
    def half_made(self, prompts: Sequence[str], steps: int, after: Sequence[int]) -> Mapping[int, torch.Tensor]:
        """Return latents that the base model has after some of its steps. Accesses *image* and *base*.

        Row i has the same noise whenever it is asked, on every model that is searched.

        Args:
            prompts: n of them.
            steps: sampling steps of a whole image.
            after: numbers of steps, from 1 to one less than ``steps``.

        Returns:
            Number of steps -> ``(n, c, h, w)`` float32, as a scheduler leaves them.
        """

    @abstractmethod
    def inverted(self, latents: torch.Tensor, prompts: Sequence[str], steps: int) -> torch.Tensor:
        """Return the noise from which the model samples some pictures, ``(n, c, h, w)`` float32. Access *image*.

        Sampling is run backwards (DDIM, without guidance), from the picture to the noise.

        Args:
            latents: of n pictures, ``(n, c, h, w)``.
            prompts: n of them; the empty text is allowed.
            steps: sampling steps.
        """

    @abstractmethod
    def keep(self, tensors: Mapping[str, torch.Tensor]) -> TensorFile:
        """Keep the tensors of a find. Every access."""
