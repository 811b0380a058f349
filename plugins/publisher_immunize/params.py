"""Parameters of the step ``immunize``, with the papers' symbols (IMMA, ECCV 2024; MIMA, AAAI 2025)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from publisher.api import Captions, Params
from publisher.api.presets import Preset
from publisher.api.training import EVALUATION_STEPS

Inner = Literal["full", "cross-attention", "lora", "dreambooth", "textual-inversion"]
Outer = Literal["cross-attention-kv", "cross-attention", "attention", "denoiser"]
Positive = Annotated[float, Field(gt=0, le=1)]


class MergingLayerParams(Params):
    """Settings of the merging layer."""

    texts: int = Field(default=2, ge=1, le=100)
    """Number of captions of each concept in T: the first ones of a step. The authors take two."""
    ridge: float = Field(default=1e-4, gt=0, le=1)
    """Number that is added to the diagonal of C, relative to its mean."""
    tolerance: float = Field(default=1e-3, ge=0, le=0.5)
    """Distance, relative to their length, up to which rows of T count as one. That row reads as the concepts' mean."""
    rest: Literal["mean", "sum"] = "mean"
    """Share of adapters outside of keys and values in the merged model: their mean over the concepts, which halves each
    of two, or their sum."""
    condition: float = Field(default=1e10, ge=10, le=1e14)
    """Largest condition number of T C^-1 T^T; above it the step fails instead of writing round-off into weights."""


class AutoParams(Params):
    """Settings of the probe of ``schedule: auto``: a small re-learning attack on held-out images ends the training."""

    every: int = Field(default=25, ge=1, le=100_000)
    """Outer steps between two probes."""
    steps: int = Field(default=5, ge=1, le=1000)
    """Training steps of the probe after which the held-out loss of the model before immunisation is the mark."""
    lr: Positive = 1e-3
    """Learning rate of the probe's LoRA."""
    innocent: float = Field(default=0.02, gt=0, le=10)
    """Largest rise of the kept images' denoising loss, as a share. The last weights within it are taken."""


class RelearningCheckParams(Params):
    """Test of the claims about re-learning; see ``publisher.api.TrainingParams``."""

    captions: Captions = "name"
    """Captions that the attacker writes under the images of the concept."""
    images: int = Field(default=20, ge=1, le=10_000)
    """Number of images of the concept that the attacker has."""
    evaluation_steps: tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...] = Field(
        default=EVALUATION_STEPS, min_length=2
    )
    """Training steps after which images are generated, ascending, from 0."""
    seeds: int = Field(default=3, ge=1, le=100)
    """Number of repetitions, each with another seed."""
    batch: int = Field(default=4, ge=1, le=512)
    """Number of images of one training step."""
    images_per_evaluation: int = Field(default=12, ge=1, le=1000)
    """Number of images that are generated after each evaluation step of each trial."""
    controls: tuple[str, ...] = ("before", "base", "retrained")
    """Models that are attacked in the same way, to compare with."""
    settings: dict[str, dict[str, bool | int | float | str]] = Field(default_factory=dict)
    """Attack -> further parameters of its own, such as ``{lora: {lr: 1.0e-3}}``."""

    def budget(self, attack: str, **other: Any) -> dict[str, Any]:
        """Return the parameters of an attack."""
        return {**self.model_dump(mode="json", exclude={"settings"}), **self.settings.get(attack, {}), **other}


class ImmunizeParams(Params):
    """Parameters of ``immunize``: simulated adaptations, objective, training, and test.

    What is not given, ``preset`` says, by the mode, the family and the size of the model: ``presets.py``. The defaults
    below hold where it says nothing.
    """

    preset: Preset = "auto"
    """Values of what is not given. ``small``: for a model of at most 32 x 32 latents. ``large``: the papers', with a
    bound on the objective. ``paper``: the papers' own, which destroy the model in long runs. ``auto``: by the model's
    size."""
    concepts: tuple[str, ...] = ()
    """Ids of the manifest's concepts to immunise against, all in one go; empty: all of them."""
    mode: Literal["relearning", "personalization"] = "relearning"
    """Aim of the attacker. ``relearning``: concepts that an earlier step erased. ``personalization``: concepts the
    model never lost."""
    method: Literal["mima", "imma"] = "mima"
    """Method. ``mima``: the outer loss sees one model merged of all adapted copies. ``imma``: each concept sees its
    own."""
    inner: Inner | tuple[Inner, ...] = "full"
    """Adaptation that is simulated (phi, theta'_n); of several, ``inner_choice`` says which one when."""
    inner_steps: int = Field(default=1, ge=1, le=1000)
    """Steps of the adaptation within one outer step."""
    inner_lr: Positive | dict[Inner, Positive] | None = None
    """Learning rate of the adaptation: one number, or one for each kind of adaptation."""
    inner_rule: Literal["sgd", "normalised"] = "sgd"
    """Rule by which keys and values move: plain SGD, as published (they hardly move), or scaled so that an entry moves
    by ``inner_lr`` in root mean square, as with Adam. All other tensors, and adapters, always take Adam."""
    inner_rank: int = Field(default=4, ge=1, le=256)
    """Rank of the adapters of ``lora``."""
    restart: int = Field(default=1, ge=0, le=100_000)
    """Outer steps after which the simulated adaptation starts again, from the weights as they then are; 0: it goes on
    to the end, as in the authors' code."""
    inner_choice: Literal["step", "restart", "turns"] = "step"
    """How the kind of adaptation is chosen. ``step``: at random for each outer step, each kind going on where it was.
    ``restart``: at random for all steps until the next restart. ``turns``: at each restart comes the next one of
    ``inner``."""
    unadapted: float = Field(default=0.0, ge=0, lt=1)
    """Share of restarts up to the next of which nothing is adapted: the objective then sees the weights as they are.
    Not with ``inner_choice: step``."""
    outer: Outer = "cross-attention"
    """Tensors that are trained and exported, the same set (theta, S_u). ``denoiser``: all of it. Keys and values see
    words alone; only the whole denoiser tells a concept under a new word from another thing under one."""
    objective: Literal["ascend", "hold"] = "ascend"
    """Objective for the concepts. ``ascend``: after the adaptation the concept's loss is to be large, as published.
    ``hold``: after it the model is to predict what the model before this step predicts without it."""
    bound: Annotated[float, Field(gt=0, le=1000)] | None = 1.0
    """Loss above which a row is left alone, for ``ascend`` alone; a prediction of nothing has 1, and about 2 in flow
    matching. null: no bound, as published: long runs destroy the model."""
    strength: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the objective's term about the concepts; 0: off."""
    prior: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the adapted model's denoising loss on kept images; 0: off."""
    lam: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of the change on kept prompts of the model without adaptation: mean squared error to its predictions
    before this step; 0: off."""
    mu: float = Field(default=0.0, ge=0, le=1e6)
    """Weight of innocent learning: after the same adaptation to a kept concept under a rare word, mean squared error
    between the predictions of this model and of the one before immunisation; 0: off."""
    first_order: bool = False
    """Whether the adapted copies count as constants, as in the authors' code: the gradient skips the merge."""
    inner_order: Literal[1, 2] = 1
    """Order of the derivative. 2: gradients of the inner steps are differentiated too. 1: they count as constants."""
    captions: tuple[Captions, ...] | dict[Captions, Positive] = Field(
        default=("name", "rare", "description", "synonym", "empty"), min_length=1
    )
    """Kinds of captions that the simulated attacker writes; one is chosen at random for each step, with equal shares or
    with those that are given. With one kind alone, immunisation loses most of its effect against others."""
    rare: Annotated[int, Field(ge=1, le=10_000)] | tuple[str, ...] = Field(default=("xjy", "qvz"))
    """Rare words to train on, or how many of 3 to 5 letters are drawn at random; each adaptation then takes another
    one. Attacks take another one ("sks"): it is never drawn, nor is a word of the manifest's concepts."""
    images: int | None = Field(default=None, ge=2, le=10_000)
    """Number of images of each concept (x_n)."""
    keep_concepts: int = Field(default=24, ge=1, le=10_000)
    """Number of kept concepts that give images, spread evenly over the manifest's."""
    keep_images: int | None = Field(default=None, ge=1, le=10_000)
    """Number of images of each kept concept."""
    keep_texts: int = Field(default=512, ge=1, le=100_000)
    """Number of kept prompts that are encoded: the captions of the merge (K), and texts of ``lam``."""
    keep_captions: Literal["prompts", "words"] = "prompts"
    """Captions of the kept images of ``lam``. ``prompts``: half their own, an eighth none, other kept prompts.
    ``words``: half their own; rare words in place of the name, other kept prompts, none (three twentieths each), and
    prompts of the concepts that go."""
    steps: int | None = Field(default=None, ge=1, le=200_000)
    """Number of outer steps; with ``schedule: auto`` the largest number."""
    batch: int | None = Field(default=None, ge=1, le=256)
    """Number of images of each concept in one step."""
    prior_batch: int | None = Field(default=None, ge=1, le=256)
    """Number of kept images in one step, for each concept."""
    lr: Positive | None = None
    """Outer learning rate of AdamW."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Schedule of the outer rate. ``linear``: it falls to 0 over the steps, which does less harm to what is kept.
    ``cosine``: it falls to a tenth. The papers' is constant."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    """Weight decay of AdamW at the outer level."""
    max_grad_norm: float = Field(default=1.0, ge=0, le=1e6)
    """Norm that the outer gradient is clipped to; 0: off."""
    merge: MergingLayerParams = MergingLayerParams()
    """Settings of the merging layer."""
    schedule: Literal["fixed", "auto"] = "fixed"
    """End of the training: after ``steps``, or, with ``auto``, when a probe reaches ``delay`` or kept images suffer."""
    auto: AutoParams = AutoParams()
    """Settings of the probe of ``schedule: auto``."""
    gradient_checkpointing: bool = False
    """Whether activations are computed twice instead of being kept in memory."""
    checkpoint_every: int = Field(default=50, ge=1, le=100_000)
    """Steps between two checkpoints. A run that was stopped goes on from the last one, to the same bytes."""
    delay: float = Field(default=4.0, ge=1, le=1000)
    """Delay that is claimed: steps that re-learning takes at least, relative to the model before this step."""
    attacks: tuple[str, ...] = ("lora",)
    """Names of the attacks by training that the claims are tested with."""
    innocents: int = Field(default=1, ge=0, le=100)
    """Number of kept concepts of which it is claimed that they are learned as fast as before this step."""
    check: RelearningCheckParams = RelearningCheckParams()
    """Budget of the attacks that test the claims."""

    @property
    def inners(self) -> tuple[Inner, ...]:
        """Kinds of adaptation that are simulated."""
        return (self.inner,) if isinstance(self.inner, str) else self.inner

    def rate(self, kind: Inner) -> float:
        """Return the learning rate of one kind of adaptation."""
        return (self.inner_lr.get(kind) if isinstance(self.inner_lr, dict) else self.inner_lr) or 0.0

    @property
    def tested(self) -> tuple[str, ...]:
        """Names of the attacks, each once."""
        return tuple(dict.fromkeys(self.attacks))

    @property
    def caption_shares(self) -> dict[Captions, float]:
        """Kinds of captions and their shares, which need not add up to 1."""
        return self.captions if isinstance(self.captions, dict) else dict.fromkeys(self.captions, 1.0)

    @field_validator("concepts", "captions", "rare", "attacks")
    @classmethod
    def _no_repeats(cls, value: Any) -> Any:
        if isinstance(value, tuple) and len(set(value)) < len(value):
            raise ValueError("something is named twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rare == ():
            raise ValueError("rare names at least one word")
        if not self.inners or len(set(self.inners)) < len(self.inners):
            raise ValueError("inner names at least one adaptation, each once")
        if isinstance(self.inner_lr, dict) and set(self.inner_lr) != set(self.inners):
            raise ValueError("inner_lr names other adaptations than inner")
        if self.unadapted and self.inner_choice == "step":
            raise ValueError("unadapted is a share of restarts: set inner_choice to restart")
        if self.inner_order == 2 and self.first_order:
            raise ValueError("first_order and inner_order 2 contradict each other")
        if self.inner_order == 2 and self.restart != 1:
            raise ValueError("inner_order 2 differentiates the whole adaptation: set restart to 1")
        if self.inner_order == 2 and self.gradient_checkpointing:
            raise ValueError("inner_order 2 keeps the activations: set gradient_checkpointing to false")
        if not self.strength + self.prior + self.lam + self.mu:
            raise ValueError("every term of the objective is off")
        return self
