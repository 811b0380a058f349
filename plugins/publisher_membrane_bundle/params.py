"""Parameters of the step ``membrane-bundle``, with the paper's symbols (SPM, arXiv 2312.16145)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from publisher.api import Params
from publisher.api.membranes import Transport
from publisher.api.presets import Preset


class Anchors(Params):
    """The texts that latent anchoring is measured on (D in eq. 7): there the membrane must change nothing."""

    uncond: float = Field(default=0.5, ge=0, le=1)
    """Weight of the empty prompt; the rest is shared by the sampled anchors. The authors' code has 1/2: it interleaves
    four anchors with the empty prompt, splits the batch in halves and keeps the second."""
    gaussian: int = Field(default=2, ge=0, le=32)
    """Number of anchors of Gaussian noise of the target's norm (times U(0.8, 1.2)), sampled as text states each step.
    The published sampling distribution comes to no more: at this width the cosine of noise and target is always nearly
    0."""
    prompts: int = Field(default=0, ge=0, le=32)
    """Number of anchors that are prompts of ``keep``, sampled each step. Not in the paper."""

    @model_validator(mode="after")
    def _some_anchor(self) -> Self:
        if self.uncond < 1 and not self.gaussian + self.prompts:
            raise ValueError("without gaussian or prompts the empty prompt is the only anchor: set uncond to 1")
        return self


class MembraneParams(Params):
    """Parameters of ``membrane-bundle``: its membranes, their training, and the way they travel.

    What is not given, ``preset`` says, by the size of the model: ``presets.py``. The defaults below hold where it says
    nothing.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    preset: Preset = "auto"
    """Values of what is not given. ``small``: for a model of at most 32 x 32 latents. ``large``: the authors' training,
    with a neighbour as surrogate and a threshold. ``paper``: the authors' own. ``auto``: by the model's size."""

    concepts: tuple[str, ...] = ()
    """Ids of the manifest's concepts that get a membrane; empty: all of them."""
    mode: Literal["bundle", "merge"] = "bundle"
    """Way in which membranes travel. ``bundle``: beside untouched weights, opened by the prompt in ``publisher.load``;
    a user who loads the weights alone is free of them. ``merge``: added to the weights with constant permeability."""
    reuse: dict[str, str] = Field(default_factory=dict, alias="from")
    """Concept id -> membrane file, relative to the manifest, that is used instead of training one. It may have been
    trained on another model of the same family."""
    trainer: Literal["pool", "exact"] = "pool"
    """Way of training. ``exact``: the authors' arithmetic. ``pool``: the same losses on trajectories that go on from
    step to step, so that partial denoising costs nothing, at aligned timesteps."""
    train_on: Literal["name", "prompts"] = "name"
    """Target texts: the concept's name, as the authors do, or all of its prompts in turn."""
    surrogates: Literal["auto"] | dict[str, str] = "auto"
    """Concept id -> words that take the name's place in the surrogate text (c_s, "neutral"); an empty entry is the
    empty prompt. ``auto``, and for concepts without an entry: the nearest kept concept of the same kind, and of styles
    the farthest, by the text encoder's token embeddings; with ``preset: paper`` the empty prompt."""
    aliases: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Concept id -> further words that open its membrane. The manifest's synonyms do not: they test it."""
    positives: dict[str, str] = Field(default_factory=dict)
    """Concept id -> words for the text that is pushed away from (c_p, "positive"). Default: the target itself."""
    eta: float = Field(default=1.0, ge=0, le=100)
    """Push of the target beyond the surrogate (eta, the code's ``guidance_scale``)."""
    lam: float = Field(default=1000.0, ge=0, le=1e6)
    """Weight of latent anchoring (lambda, ``la_strength``). 1000 is for SD 1.4; other models need less."""
    anchors: Anchors = Anchors()
    """Texts that latent anchoring is measured on."""
    rank: int = Field(default=1, ge=1, le=128)
    """Rank of each side branch (d)."""
    alpha: float = Field(default=1.0, gt=0, le=1000)
    """Scale of the branch, times the rank: it is multiplied by alpha / rank."""
    steps: int = Field(default=3000, ge=1, le=200_000)
    """Number of optimizer steps for each membrane."""
    lr: float = Field(default=1e-4, gt=0, le=1)
    """Peak learning rate of AdamW (betas 0.9 and 0.999, weight decay 0.01)."""
    warmup: int = Field(default=500, ge=0, le=100_000)
    """Number of steps of linear warm-up from 0; at most ``steps``."""
    cycles: int = Field(default=3, ge=1, le=100)
    """Number of cycles of the cosine that follows."""
    max_grad_norm: float = Field(default=0.0, ge=0, le=1e6)
    """Norm that gradients are clipped to; 0: off, as the authors have it."""
    denoising_steps: int = Field(default=30, ge=2, le=1000)
    """Number of steps of the DDIM grid on which a noisy image is made for each optimizer step."""
    denoising_guidance: float = Field(default=3.0, ge=0, le=100)
    """Guidance scale while the noisy image is made."""
    dynamic_resolution: bool = False
    """Whether height and width are sampled from 4/8 to 7/8 of the model's, as in the authors' configurations; for
    ``exact`` alone."""
    pool: int = Field(default=16, ge=1, le=1024)
    """Number of trajectories that are kept, at staggered noise levels; for ``pool`` alone."""
    batch: int = Field(default=1, ge=1, le=64)
    """Number of trajectories that take part in one optimizer step; for ``pool`` alone."""
    checkpoint_every: int = Field(default=500, ge=1, le=100_000)
    """Steps between two checkpoints. A run that was stopped goes on from the last one, to the same bytes."""
    permeability: float = Field(default=1.0, ge=0, le=10)
    """Constant permeability (gamma), for ``merge`` alone."""
    transport: Transport = Transport()
    """Rule by which the prompt opens the membranes, for ``bundle`` alone. It is written into the package and evaluated
    as it is."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Type of the membrane file's tensors. Training is in float32 whatever this says."""

    @field_validator("concepts")
    @classmethod
    def _no_repeats(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a concept is named twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.warmup > self.steps and {"warmup", "steps"} <= self.model_fields_set:
            raise ValueError("warmup must not be longer than steps")
        if self.batch > self.pool:
            raise ValueError("batch must not be larger than pool")
        return self
