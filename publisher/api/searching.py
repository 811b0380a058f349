"""Attacks that search: they try, look at what comes out, and keep what brought the concept back.

A search touches nothing but a :class:`SearchTarget`. It gives what the attack's access allows, counts what is spent,
and refuses what nobody may generate. What is found is judged afterwards, on seeds that the search never saw.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import Field

from publisher.api.attacks import Access, Attack, ImageRequest, Sampling
from publisher.api.concepts import Concept
from publisher.api.families import Capability
from publisher.api.metrics import Measurement, Metric, Observation
from publisher.api.params import Params
from publisher.api.steps import P
from publisher.errors import PublisherError

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.starting import Start
    from publisher.api.diffusion.text import Text

Budget = Literal["quick", "standard", "thorough"]
Floor = Literal["retrained", "shuffled", "input"]
"""What shows which success is none: ``retrained``, the same search on ``evaluate.retrained``; ``shuffled``, the same
search on the hardened model for something that it cannot have; ``input``, what a picture or a latent that the images
begin from shows without any denoiser."""
Shuffle = Literal["concept", "judge", "base"]
Stop = Literal["found", "nothing", "budget", "refused", "crashed"]
Standing = Literal["decided", "powerless", "uninformative", "without floor"]
MOST_FINDS = 3
SLOT = "<*>"
"""Stands in a prompt for vectors, as S* does in textual inversion (arXiv 2208.01618)."""
IMAGES_PER_FIND: Mapping[Budget, int] = MappingProxyType({"quick": 24, "standard": 60, "thorough": 60})


WITHOUT_FLOOR = (
    "nothing shows what the attack on {name!r} finds where there is nothing to find:"
    " name evaluate.retrained, or keep a concept of its kind"
)


class BudgetSpent(Exception):  # noqa: N818 - no error: it ends a search as planned
    """A search has used up what it may spend."""


class CandidateRefused(Exception):  # noqa: N818 - no error: it ends a search, which then says so
    """A search came to words that nobody may generate. They are neither encoded nor stored."""


class AccessDeniedError(PublisherError):
    """An attack asks for what the access that it declares does not give."""


class Limits(Params):
    """What a search spends, or may spend, in counts. Seconds are never counted: another machine has others."""

    images: int = Field(default=0, ge=0)
    """Images that are generated and looked at, those that judge the finds excepted."""
    gradient_steps: int = Field(default=0, ge=0)
    """Gradients that are taken."""
    denoiser_rows: int = Field(default=0, ge=0)
    """Rows through the denoiser, those of generated images excepted."""
    encoder_rows: int = Field(default=0, ge=0)
    """Texts that are encoded, those of generated images excepted."""

    def __add__(self, other: Self) -> Self:
        """Return the sum of both, count by count."""
        ours, theirs = self.as_json(), other.as_json()
        return type(self).parse({name: ours[name] + theirs[name] for name in ours})

    def within(self, most: Limits) -> bool:
        """Return whether none of the counts is larger than in ``most``."""
        allowed = most.as_json()
        return all(count <= allowed[name] for name, count in self.as_json().items())


class TensorFile(Params):
    """Tensors of a find, which lie in a file beside it."""

    sha256: str
    """Of the file, which is ``finds/<sha256>.safetensors``."""
    shapes: dict[str, tuple[int, ...]]
    """Name -> shape."""


class Begin(Params):
    """How images begin from pictures or from latents, in place of noise alone."""

    skipped: int = Field(default=0, ge=0, le=1000)
    """Sampling steps that are left out, because what the images begin from is that far already."""
    noised: bool = True
    """True: it is pictures, and each image's own noise is added as those steps have it. False: it is taken as it is."""
    angle: float = Field(default=0.0, ge=0, le=90)
    """Degrees by which noise that is given is turned towards each image's own noise; 90 leaves nothing of it."""
    eta: float = Field(default=0.0, ge=0, le=10)
    """Noise that each step adds, as a multiple of what DDPM would add (DDIM's eta); 0: the model's own sampler."""
    noise_scale: float = Field(default=1.0, gt=0, le=10)
    """What that noise is multiplied by beyond the amount that the step reckons with."""

    @property
    def blank(self) -> bool:
        """Whether images begin from nothing but their own noise."""
        return not self.noised and self.angle == 90


@dataclass(frozen=True)
class Shown:
    """What the scorer sees in images that began from a picture or a latent."""

    images: tuple[bool, ...]
    """Whether each image shows the concept."""
    inputs: tuple[bool, ...]
    """Whether what it began from shows the concept without any denoiser."""


class Find(Params):
    """What brought a concept back, with all that is needed to do it again without searching."""

    kind: Literal["text", "states", "embedding", "image", "latent"]
    """``text``: prompts to type. ``states``: text states to generate with in place of prompts. ``embedding``: vectors
    that stand in prompts for words. ``image``: pictures, and ``latent``: latents, that the images begin from."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Exact texts, asked in turn. Of ``states`` what each row was made from. Of ``embedding`` with
    :data:`publisher.api.SLOT` where the vectors stand."""
    negative_prompt: str = ""
    """Text that the images are to be unlike; empty: none."""
    guidance: float | None = Field(default=None, ge=0)
    """Classifier-free guidance scale; None: the checks' own."""
    steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps; None: the checks' own."""
    begin: Begin | None = None
    """Of ``image`` and ``latent``: how the images begin. None: from noise."""
    tensors: TensorFile | None = None
    """Of ``states``: ``states``, ``(n, positions, d)`` for n prompts, and ``pooled``, ``(n, p)``, where the model reads
    that too. Of ``embedding``: ``vectors_1``, ``(k, d)``, ``vectors_2`` and so on, one for each text encoder. Of
    ``image`` and ``latent``: the tensors of a :class:`publisher.api.diffusion.starting.Start`, whose rows are used in
    turn. None: a text."""
    recipe: dict[str, str | float] = Field(default_factory=dict)
    """How it was made, such as ``{"rho": 0.1}``."""
    score: float = 0.0
    """How good the search held it to be. It counts for nothing."""


class SearchParams(Params):
    """Parameters of every attack that searches."""

    budget: Budget = "quick"
    """How much is tried: sets the numbers that are not given."""
    finds: int = Field(default=MOST_FINDS, ge=1, le=MOST_FINDS)
    """Number of finds that are kept and judged: the best ones."""
    images_per_find: int | None = Field(default=None, ge=1, le=1000)
    """Images by which each find is judged, on seeds that the search did not see; default: 24 of a quick budget, else
    60."""


S = TypeVar("S", bound=SearchParams)


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
    def ask(self, prompts: Sequence[str]) -> tuple[bool, ...]:
        """Generate an image for each prompt and return whether it shows the concept. Every access.

        A prompt that is asked again gets another seed. Many prompts at once are faster than one after the other.
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


class SearchAttack(Attack[S], ABC):
    """Try many ways to a concept and keep the best.

    The verification runs the search on the hardened model, on the base model (does the attack work at all?) and on its
    floors (what would be found if nothing were there?), with the same random numbers and the same limits. The attack
    cannot tell which of them it is run on.

    Attributes:
        access: the row of the report that it belongs to: the largest of its grants.
        grants: all that the attacker needs to have. The target gives no more.
        floors: controls that show what chance and the attack's own input give; at least one.
        shuffles: how the floor ``shuffled`` is made. ``concept``: the search is made for a kept concept of the same
            kind, and looks for the concept. ``judge``: it is made for the kept concept and looks for it, and what it
            finds is judged for the concept. ``base``: the matrices of the base model are permuted among those of one
            shape.
        budgets: budget -> parameters that it sets where they are not given.
        suites: budgets in whose suites (``evaluate.red_team``) it stands, of those that it has; a slow one leaves the
            quick suite out.
        needs: what the model's family must have.
    """

    grants: ClassVar[frozenset[Access]]
    floors: ClassVar[tuple[Floor, ...]]
    shuffles: ClassVar[Shuffle] = "concept"
    budgets: ClassVar[Mapping[Budget, Mapping[str, Any]]] = MappingProxyType({})
    suites: ClassVar[frozenset[Budget]] = frozenset(get_args(Budget))
    needs: ClassVar[tuple[Capability, ...]] = ()

    def sized(self, params: S) -> S:
        """Return the parameters with the numbers that their budget stands for. Torch-free."""
        numbers = {"images_per_find": IMAGES_PER_FIND[params.budget], **self.budgets.get(params.budget, {})}
        return params.filled(numbers)

    def pictures(self, params: S) -> int:  # noqa: ARG002
        """Return the number of pictures of the concept that the search looks at. Torch-free.

        Args:
            params: with the numbers of their budget.
        """
        return 0

    def requests(self, params: S, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:  # noqa: ARG002
        """Return nothing: what a search asks for depends on what it sees."""
        return ()

    @abstractmethod
    def limits(self, params: S) -> Limits:
        """Return the most that a search spends on one concept and one model. Torch-free.

        Args:
            params: with the numbers of their budget.
        """

    @abstractmethod
    def search(self, params: S, target: SearchTarget, concept: Concept, generator: torch.Generator) -> Iterator[Find]:
        """Yield finds, the best last; the last ``params.finds`` are kept. None: nothing was found.

        Args:
            params: with the numbers of their budget.
            target: the model.
            concept: what is looked for.
            generator: generator on the CPU; the only source of random numbers.
        """


class JudgedFind(Params):
    """One find, judged on fresh seeds."""

    hits: int = Field(ge=0)
    """Images that show the concept. Of the hardened model also those that the scorer could not judge."""
    n: int = Field(ge=1)
    """Images."""
    base_hits: int | None = Field(default=None, ge=0)
    """Of the same find, tried on the base model with the same seeds; None: it was not tried there."""
    input_hits: int | None = Field(default=None, ge=0)
    """Of what the images began from, without any denoiser; None: they began from noise."""
    unknown_hits: int | None = Field(default=None, ge=0)
    """Of the images without their known part; None: no part was known."""


class Search(Params):
    """One search on one model: what it spent, and how good its finds are."""

    concept: str
    """Id."""
    model: str
    """Name of the model: ``hardened``, ``base``, ``retrained`` or ``shuffled``."""
    stop: Stop
    """Why it ended: with finds, with nothing, at its limits, at words that nobody may generate, or by a crash."""
    problem: str = ""
    """Reason of a crash; empty: there was none."""
    spent: Limits
    """What it spent."""
    tried: int = Field(ge=0)
    """Images that it looked at."""
    hits: int = Field(ge=0)
    """Those of them that showed the concept. They chose the finds, and count for nothing else."""
    input_hits: int | None = Field(default=None, ge=0)
    """Those that show it in what they began from, without any denoiser; None: they began from noise."""
    refused: int = Field(default=0, ge=0)
    """Candidates that nobody may generate."""
    finds: tuple[JudgedFind, ...] = ()
    """Finds in the order in which they were kept, the best last as the search saw it."""


def tells_nothing(measurement: Measurement) -> bool:
    """Return whether a measurement of searches says of every concept that its floor is as good as the base model.

    Such a number is *reported* whatever the gate: nothing that a model does could make it better or worse.
    """
    standing = measurement.details.get("standing")
    return isinstance(standing, dict) and bool(standing) and set(map(str, standing.values())) == {"uninformative"}


class SearchMetric(Metric[P], ABC):
    """Turns searches into a measurement. Checks pair it with an attack that searches alone.

    Its details name under ``standing`` what can be said of each concept: ``decided``; ``powerless``, the attack does
    not work on the base model either; ``uninformative``, its floor is as good as the base model; ``without floor``.
    """

    def measure(self, params: P, observations: Sequence[Observation]) -> Measurement:  # noqa: ARG002
        """Refuse: single images are no search.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"the metric {self.name!r} needs an attack that searches")

    @abstractmethod
    def read(self, params: P, searches: Sequence[Search]) -> Measurement:
        """Return the number of these searches: of the hardened model and of all controls, of all concepts of the check.

        Raises:
            ValueError: too little to say anything; the check becomes *unknown*.
        """
