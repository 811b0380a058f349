"""Parameters of the step ``erase``, with the papers' symbols."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from publisher.api import Params

TextSearch = Literal["derived-embedding", "concept-inversion"]


class SurgicalParams(Params):
    """Parameters of ``method: surgical``: what is trained, from where, on which trajectories, and for how long."""

    parts: Literal["kv", "cross-attention", "full"] = "kv"
    """Weights that are trained. ``kv``: those by which text enters, which the closed form changes too.
    ``cross-attention``: all of the layers that read the text. ``full``: the whole denoiser."""
    init: Literal["uce", "base"] = "uce"
    """Weights that the training starts from: the closed form's, or the model's own. From the model's own, fine-tuning
    brings the concept back sooner."""
    steps: int | None = Field(default=None, ge=0, le=100_000)
    """Number of steps; 0 leaves what ``init`` gives. None: by the size of the model. Several concepts take turns."""
    lr: float | None = Field(default=None, gt=0, le=1)
    """Peak learning rate of AdamW (no weight decay). None: by the size of the model and ``parts``."""
    warmup: int = Field(default=10, ge=0, le=10_000)
    """Number of steps of linear warm-up; a cosine to 0 follows."""
    clip: float = Field(default=1.0, gt=0, le=1e6)
    """Largest norm of a step's gradient."""
    batch: int = Field(default=4, ge=1, le=256)
    """Rows of the concept a step: each is a noisy latent, read with the concept's prompt and with the empty one."""
    keep_batch: int = Field(default=8, ge=1, le=256)
    """Rows of kept prompts a step."""
    lam_uncond: float = Field(default=10.0, ge=0, le=1e6)
    """Weight of the drift of the empty prompt, on the concept's trajectories."""
    lam_keep: float = Field(default=10.0, ge=0, le=1e6)
    """Weight of the kept prompts."""
    lam_keep_empty: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the empty prompt on the kept prompts' trajectories; half of the kept rows carry it."""
    trajectories: Literal["both", "alternative", "concept"] = "both"
    """Whose trajectories the concept's rows come from: the alternative's, where the trained model goes; the concept's,
    which closes what synonyms find; or half of each."""
    pool: int = Field(default=6, ge=1, le=1000)
    """Number of trajectories of each concept, over its first prompts in turn."""
    denoising_steps: int = Field(default=8, ge=2, le=1000)
    """Number of noise levels of a concept's trajectory."""
    kept_steps: int = Field(default=4, ge=2, le=1000)
    """Number of noise levels of a kept prompt's trajectory."""
    kept_pool: int = Field(default=64, ge=1, le=10_000)
    """Largest number of kept prompts that get a trajectory, spread evenly."""
    guidance: float = Field(default=3.0, ge=0, le=100)
    """Guidance scale of the trajectories."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass: less memory, a third more time."""
    checkpoint_every: int = Field(default=50, ge=1, le=100_000)
    """Steps between two checkpoints. A run that was stopped goes on from the last one, to the same bytes."""

    @model_validator(mode="after")
    def _enough_kept_rows(self) -> Self:
        if self.lam_keep_empty and self.keep_batch < 2:
            raise ValueError("half of the kept rows carry lam_keep_empty: set keep_batch to 2, or lam_keep_empty to 0")
        return self


class InnerParams(Params):
    """Attackers inside ``method: robust``: they look for text states that still bring the concept back."""

    kinds: tuple[Literal["derived", "states", "token"], ...] = ("derived", "states")
    """Attackers. ``derived``: a closed form on keys and values, which costs nothing. ``states``: free text states,
    found by gradient. ``token``: one token vector in front of the text encoders, found by gradient."""
    every: int = Field(default=50, ge=1, le=100_000)
    """Steps between two searches by gradient."""
    fresh: int = Field(default=3, ge=1, le=64)
    """Number of searches for each concept and attacker, each from another kept prompt."""
    steps: int = Field(default=20, ge=1, le=10_000)
    """Steps of Adam of each search."""
    lr: float = Field(default=0.1, gt=0, le=10)
    """Learning rate of a search, in units of the root mean square of what it moves."""
    batch: int = Field(default=4, ge=1, le=64)
    """Noisy images of each step of a search."""
    pool: int = Field(default=16, ge=1, le=1000)
    """Number of finds of each concept that are kept, the newest."""
    derived_every: int = Field(default=10, ge=1, le=100_000)
    """Steps between two closed forms."""
    rho: float = Field(default=0.1, gt=0, le=1e6)
    """Pull of the closed form's rows towards 0."""

    @field_validator("kinds")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("name at least one attacker, and each once")
        return value


class RobustParams(SurgicalParams):
    """Parameters of ``method: robust``: those of ``surgical``, and the attackers that it is trained against."""

    parts: Literal["kv", "cross-attention", "full"] = "full"
    """Weights that are trained. Keys and values alone are a linear map of the text: against free text states they hold
    little."""
    lam_keep_empty: float = Field(default=10.0, ge=0, le=1e6)
    """Weight of the empty prompt on the kept prompts' trajectories; half of the kept rows carry it."""
    pool: int = Field(default=8, ge=1, le=1000)
    """Number of trajectories of each concept, over its first prompts in turn."""
    denoising_steps: int = Field(default=20, ge=2, le=1000)
    """Number of noise levels of a concept's trajectory."""
    kept_steps: int = Field(default=10, ge=2, le=1000)
    """Number of noise levels of a kept prompt's trajectory, and of one that ends in a picture."""
    kept_pool: int = Field(default=200, ge=1, le=10_000)
    """Largest number of kept prompts that get a trajectory, spread evenly."""
    lam_adversarial: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the attackers' rows."""
    lam_image: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the concept's pictures under the empty prompt: against image-to-image, at the cost of that prompt."""
    adversarial_batch: int = Field(default=4, ge=1, le=256)
    """Rows of the attackers a step, and of ``lam_image`` where it is on."""
    images: int = Field(default=24, ge=8, le=10_000)
    """Pictures of each concept that the model draws before the training, for the attackers."""
    copies: int = Field(default=16, ge=1, le=1000)
    """Noisy copies of each picture whose frozen predictions are kept."""
    attack: InnerParams = InnerParams()
    """Attackers."""
    promises: tuple[TextSearch, ...] | None = None
    """Attacks of which it is promised that they find nothing in the result: searches for text states with the base
    model's weights, and for a vector with pictures of the concept. None: those that run on the model's family; empty:
    none is promised."""

    @field_validator("promises")
    @classmethod
    def _promised_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value and len(set(value)) < len(value):
            raise ValueError("an attack is named twice")
        return value


class EraseParams(Params):
    """Parameters of ``erase``: concepts, their targets, what stays, and the strength of the edit."""

    method: Literal["uce", "rece", "surgical", "robust"] = "uce"
    """Method. ``uce``: one closed-form edit. ``rece``: then ``epochs`` rounds against what still calls the concept
    up. ``surgical``: a training of the guidance term that holds the empty prompt. ``robust``: a training of the
    denoiser against attackers that look for text states. The trained ones start from ``uce``, with a
    ``preserve_scale`` of 10 unless one is given."""
    concepts: tuple[str, ...] = ()
    """Ids of the manifest's concepts to erase; empty: all of them."""
    targets: Literal["auto"] | dict[str, str] = "auto"
    """Concept id -> words that take the place of the concept's name in its prompts (g). Words of the same sort (another
    object) do less damage; an empty entry means the empty prompt. ``auto``, and for concepts without an entry: the
    nearest kept concept of the same kind, and of styles the farthest, by the text encoder's token embeddings."""
    synonyms: bool = False
    """Whether the concepts' paraphrases (prompts with synonyms in place of the name) are erased too."""
    rows: Literal["content", "mean-pad", "last-eos", "last", "tail", "all"] = "mean-pad"
    """Token positions that are edited: ``mean-pad`` (last word, end token, mean of the padding), ``content`` (the same
    with every word), ``last-eos``, ``last`` (UCE's rule of 2025), ``tail`` (UCE's rule of 2023), ``all`` (RECE's).
    Where text enters by one linear map, ``mean-pad`` becomes ``content``, and other rules are refused."""
    lam: float = Field(default=1e-3, gt=0, le=1e6)
    """Pull towards the old weights (lambda). The authors use 0.5 and 0.1 with ``lam_scale: absolute``."""
    lam_scale: Literal["relative", "absolute"] = "relative"
    """Unit of ``lam``. ``relative``: the mean of |c|^2, so that it means the same for every text encoder."""
    erase_scale: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the rows to erase (e)."""
    preserve_scale: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the retained prompts' mean (p, or lambda_1)."""
    epochs: int = Field(default=1, ge=0, le=5)
    """Number of rounds of RECE after the first edit; 0 is UCE alone. The authors take 1 to 3. For ``rece`` alone."""
    joint: bool = True
    """Whether each round of RECE is solved from the original weights with all embeddings found so far; false edits on
    top of the round before, as the authors do."""
    rho: float = Field(default=0.1, gt=0, le=1e6)
    """Pull of the adversarial embeddings towards 0 (the code's regular_scale); the authors take 0.1 or 0.001."""

    surgical: SurgicalParams | None = None
    """Parameters of ``method: surgical`` alone."""
    robust: RobustParams | None = None
    """Parameters of ``method: robust`` alone."""

    @property
    def training(self) -> SurgicalParams | None:
        """Parameters of the method's training; None: the method is a closed form, or they are not decided."""
        return {"surgical": self.surgical, "robust": self.robust}.get(self.method)

    @field_validator("concepts")
    @classmethod
    def _no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a concept is named twice")
        return value

    @model_validator(mode="after")
    def _parameters_of_the_method(self) -> Self:
        for name in ("surgical", "robust"):
            if getattr(self, name) is not None and self.method != name:
                raise ValueError(f"{name} has parameters of method: {name}, and the method is {self.method}")
        return self
