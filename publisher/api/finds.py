"""What attacks that search leave behind: what they spent, what they found, and how good that is."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from publisher.api.params import Params

SLOT = "<*>"
"""Stands in a prompt for vectors, as S* does in textual inversion (arXiv 2208.01618)."""
Stop = Literal["found", "nothing", "budget", "refused", "crashed"]
STOPPED: tuple[Stop, ...] = ("crashed", "refused")
"""Ends of a search that was not run to its end."""


def _none(value: object) -> bool:
    return value in (None, ())


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

    @property
    def fresh(self) -> bool:
        """Whether each image has noise of its own. Without it, equal latents give equal images."""
        return self.noised or self.angle > 0 or self.eta > 0


class Find(Params):
    """What brought a concept back, with all that is needed to do it again without searching."""

    kind: Literal["text", "states", "embedding", "image", "latent"]
    """``text``: prompts to type. ``states``: text states to generate with in place of prompts. ``embedding``: vectors
    that stand in prompts for words. ``image``: pictures, and ``latent``: latents, that the images begin from."""
    prompts: tuple[str, ...] = Field(min_length=1)
    """Exact texts, asked in turn. Of ``states`` what each row was made from. Of ``embedding`` with
    :data:`publisher.api.SLOT` where the vectors stand."""
    token_ids: tuple[tuple[tuple[int, ...], ...], ...] = Field(default=(), exclude_if=_none)
    """Of ``text``: for each prompt the ids that each text encoder is given, without padding. The verification writes
    them down. A search that chose ids names them here as :meth:`publisher.api.SearchTarget.tokens` would have them, one
    row for each prompt."""
    typeable: bool | None = Field(default=None, exclude_if=_none)
    """Of ``text``: whether typing the prompts gives the ids that the search chose, which it does where it chose texts.
    Images are of what is typed in either case."""
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
    """How good the search held it to be: the best are kept, and judged on fresh seeds. It counts for nothing else."""
    spent: Limits | None = Field(default=None, exclude_if=_none)
    """What the search had spent when it came upon it. The verification writes it down."""


class JudgedFind(Params):
    """One find, judged on fresh seeds."""

    hits: int = Field(ge=0)
    """Images that show the concept. Of the hardened model also those that the scorer could not judge."""
    n: int = Field(ge=1)
    """Images."""
    base_hits: int | None = Field(default=None, ge=0)
    """Of the same text, tried on the base model with the same seeds; None: it was not tried there."""
    input_hits: int | None = Field(default=None, ge=0)
    """Of what the images began from, without any denoiser; None: they began from noise."""
    unknown_hits: int | None = Field(default=None, ge=0)
    """Of the images without their known part; None: no part was known."""
    spent: Limits | None = None
    """What the search had spent when it came upon the find; None: nobody wrote it down."""


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
    """Those of them that showed the concept of the check; 0 where the search looked for a kept one. Where there are no
    finds, they are what counts."""
    input_hits: int | None = Field(default=None, ge=0)
    """Those that show it in what they began from, without any denoiser; None: they began from noise."""
    refused: int = Field(default=0, ge=0)
    """Candidates that nobody may generate."""
    finds: tuple[JudgedFind, ...] = ()
    """Finds in the order in which they were kept, the best last as the search saw it."""
