"""Attacks that change the weights before they ask: by training, or by mixing in tensors of another model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from publisher.api.attacks import Attack, ImageRequest, Sampling, spread_requests
from publisher.api.concepts import Concept, split_at_name
from publisher.api.families import Anatomy, Capability
from publisher.api.freeze_mask import Frozen
from publisher.api.params import Params
from publisher.api.steps import P

if TYPE_CHECKING:
    import torch

    from publisher.api.diffusion.text import Text

Captions = Literal["name", "rare", "description", "synonym", "empty"]
AttackCaptions = Literal[Captions, "unrelated"]
EVALUATION_STEPS = (0, 5, 10, 20, 40, 80, 160)
UNMASKED, RANDOM_MASK = "unmasked", "random-mask"
"""Controls of the hardened model: no mask, and a random one of as many parameters, another one for each trial."""
UNSEEN = "unseen"
"""Control that stands in for a retrained reference: the base model learns pictures of a kind that it never saw."""
OTHER_MASK = "seed-"
"""Beginning of the names of further masks that a package brings."""


class TrainingParams(Params):
    """Parameters of every attack by training: its images, its budget, and the number of its repetitions."""

    captions: AttackCaptions = "name"
    """Captions that the attacker writes under the images, and asks with afterwards: the concept's own prompts; a rare
    token in place of its name; a description without the name; its paraphrases; nothing (and then asks by name).
    ``unrelated``: the images are of kept concepts under their own prompts, and the concept is asked for by name:
    whether a fine-tuning that has nothing to do with it brings it back (concept resurgence, arXiv 2410.08074)."""
    rare: str = Field(default="sks", min_length=1)
    """Rare token that stands for the concept's name."""
    images: int = Field(default=20, ge=1, le=10_000)
    """Number of images of the concept that the attacker has."""
    evaluation_steps: tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...] = Field(
        default=EVALUATION_STEPS, min_length=2
    )
    """Training steps after which images are generated, ascending, from 0."""
    seeds: int = Field(default=3, ge=1, le=100)
    """Number of repetitions with other seeds, each with its own order of images, noise and initial adapter."""
    batch: int = Field(default=4, ge=1, le=512)
    """Number of images of one training step."""
    images_per_evaluation: int = Field(default=12, ge=1, le=1000)
    """Number of images that are generated and judged after each evaluation step of each trial."""
    controls: tuple[str, ...] = ("before", "base", "retrained")
    """Models that are attacked in the same way, to compare with: ``before`` (as it was before the step that makes the
    claim; for checks of the manifest itself the base model), ``base``, ``retrained`` (``evaluate.retrained``; left out
    where the manifest names none), or the id of a step: the model after it. Equal models are trained once. ``unseen``
    is a proxy for ``retrained``: the base model learns the same pictures with their quarters swapped. It takes
    ``captions: rare``. With ``mask``, also the hardened model under another mask of as many parameters: ``unmasked``
    (none), ``random-mask`` (another one for each trial), or one that the package names (``seed-1``)."""
    mask: bool = False
    """Whether the attacker honours the package's freeze mask on the hardened model: what is frozen stays as it is."""
    kept_captions: Captions | None = None
    """Captions under images of concepts that are to stay, where they are of another kind. The model knows them:
    only under a ``rare`` word is there anything to learn."""

    @field_validator("evaluation_steps")
    @classmethod
    def _ascending_from_zero(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value[0] != 0 or sorted(set(value)) != list(value):
            raise ValueError("evaluation_steps must ascend and begin with 0")
        return value

    @model_validator(mode="after")
    def _controls_once(self) -> Self:
        if len(set(self.controls)) < len(self.controls):
            raise ValueError("a control is named twice")
        if UNSEEN in self.controls and self.captions != "rare":
            raise ValueError("the control unseen learns under a word that means nothing: set captions to rare")
        return self

    def is_masked(self, control: str) -> bool:
        """Return whether a control is the hardened model under another mask."""
        return self.mask and (control in (UNMASKED, RANDOM_MASK) or control.startswith(OTHER_MASK))


T = TypeVar("T", bound=TrainingParams)


@dataclass(frozen=True)
class TrainingData:
    """The data of one trial of an attack, encoded once. All rows are on the training device, float32."""

    latents: torch.Tensor
    """Latents of the attacker's images, ``(n, c, h, w)``."""
    captions: tuple[str, ...]
    """Captions, one for each image."""
    prior_latents: torch.Tensor
    """Latents of images of the class, for prior preservation, ``(m, c, h, w)``; m may be 0."""
    prior_captions: tuple[str, ...]
    """Captions, one for each image of the class."""
    concept: Concept
    """Concept that the attack learns."""
    frozen: Frozen = field(default_factory=dict)
    """Tensors of the denoiser, or rows of them, that the attacker leaves as they are. An adapter on a layer with a
    frozen weight changes what the layer computes, so it counts as a change. Rows are put back after each step by the
    verification; a whole tensor that changed makes the check *unknown*: the attack does not honour masks."""


class Learner(ABC):
    """A model that is being trained: made by an attack for one trial."""

    @abstractmethod
    def step(self) -> float:
        """Take one step of the optimizer and return its loss.

        Raises:
            ArithmeticError: the loss is not finite.
        """

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> Text:
        """Encode prompts as the model reads them now, without gradients: a batch of texts."""


class TrainingAttack(Attack[T], ABC):
    """Re-learn a concept by training on a few images of it.

    The verification trains a copy of the hardened model and of every control for each trial, generates
    :meth:`requests` after each evaluation step, and measures the denoising loss on images that were held out.

    Attributes:
        needs: what the model's family must have besides a denoiser that can be trained, such as ``"cross-attention"``.
        learns_on_base: whether the base model is trained in place of the attacked one. Then :meth:`learner` is called
            for both, with equal random numbers, and :meth:`carry` puts what was learned into the attacked model before
            it is asked.
        floors: models that never knew the concept, which show what training alone teaches: ``retrained``. They are
            trained as well, where there are any, also if the parameters name other controls.
    """

    needs: ClassVar[tuple[Capability, ...]] = ()
    learns_on_base: ClassVar[bool] = False
    floors: ClassVar[tuple[Literal["retrained"], ...]] = ("retrained",)

    def controls(self, params: T) -> tuple[str, ...]:
        """Return the models that are attacked in the same way: those of the parameters, then floors that these lack.

        Where the attacker honours a mask there are no further ones: the reference has none. Torch-free.
        """
        floors = () if params.mask else tuple(one for one in self.floors if one not in params.controls)
        return (*params.controls, *floors)

    def carry(self, learned: Any, attacked: Any) -> None:
        """Put what was learned on the base model into the attacked one; for attacks that learn on the base model.

        Args:
            learned: pipeline of the base model, after some training steps.
            attacked: pipeline of the attacked model, as the last call left it.
        """
        raise NotImplementedError(f"the attack {self.name!r} learns on the base model and carries nothing over")

    def captions(self, params: T, concept: Concept) -> tuple[str, ...]:
        """Return the captions under the images, in turn. Torch-free; empty: the concept has no such texts."""
        return texts_for(params, concept)

    def requests(self, params: T, concept: Concept, sampling: Sampling) -> Sequence[ImageRequest]:
        """Return ``params.images_per_evaluation`` images to generate after each evaluation step. Torch-free.

        All concepts begin at their first prompt.
        """
        by_name = params.captions in ("empty", "unrelated")
        asked = concept.prompts if by_name else self.captions(params, concept)
        count = {"images": params.images_per_evaluation}
        return spread_requests(concept, asked, sampling.model_copy(update=count), first=0)

    def prior_images(self, params: T) -> int:  # noqa: ARG002 - for subclasses
        """Return the number of images of the class that the base model has to generate for the attack. Torch-free."""
        return 0

    @abstractmethod
    def learner(self, params: T, pipeline: Any, data: TrainingData, generator: torch.Generator) -> Learner:
        """Begin a trial.

        Args:
            params: parameters of the attack.
            pipeline: a diffusers pipeline of the attacked model in float32, for this trial alone: change it freely. Its
                attribute ``anatomy`` names its parts; :func:`publisher.api.denoiser_of` returns the denoiser.
            data: images and captions of this trial.
            generator: generator on the CPU; the only source of random numbers.
        """


class WeightAttack(Attack[P], ABC):
    """Change the weights without training, such as by mixing in tensors of the base model; then ask.

    Checks that read how hard a concept is to get name its controls beside it: the floors, altered in the same way, and
    of an attack on every tensor also the base model.

    Attributes:
        every_tensor: whether tensors that the release left as they were go through it too.
        may_break: whether it may damage a model. A model that shows less than 90% of what it kept before is broken,
            and what it shows is no success.
        floors: models that never knew the concept: ``retrained``, where ``evaluate.retrained`` names one.
    """

    every_tensor: ClassVar[bool] = False
    may_break: ClassVar[bool] = False
    floors: ClassVar[tuple[Literal["retrained"], ...]] = ("retrained",)

    def open(self, params: P, folder: Path) -> None:
        """Get ready: called once before the tensors of a model.

        Args:
            params: parameters of the attack.
            folder: of the hardened model; of a package, with what lies beside the weights under ``release/``.
        """

    def fault(self, params: P) -> str:  # noqa: ARG002 - for subclasses
        """Return what the hardened model's tensors show by themselves, such as one that must not be there, in words.

        Asked once after its tensors. A check with a gate fails by it, whatever the images show. Empty: nothing.

        Args:
            params: parameters of the attack.
        """
        return ""

    @abstractmethod
    def alter(
        self, params: P, anatomy: Anatomy, component: str, name: str, hardened: torch.Tensor, base: torch.Tensor
    ) -> torch.Tensor:
        """Return what the attacker puts in place of a tensor; same shape and dtype.

        Only what the release changed comes here, unless :attr:`every_tensor` says otherwise.

        Args:
            params: parameters of the attack.
            anatomy: parts of the model, such as the names of its attention layers.
            component: folder of the tensor.
            name: of the tensor.
            hardened: the tensor as released.
            base: the tensor of the base model.
        """


def texts_for(params: TrainingParams, concept: Concept) -> tuple[str, ...]:
    """Return the captions that ``params.captions`` stands for; none where the concept has none of that kind.

    A rare token can stand in for a name alone, so there is no such caption where no prompt has the name. Captions
    ``unrelated`` are other concepts' prompts: the verification knows them.
    """
    match params.captions:
        case "name":
            return concept.prompts
        case "synonym":
            return concept.paraphrases
        case "description":
            return (concept.description,) if concept.description else ()
        case "empty":
            return ("",)
        case "rare":
            return rare_prompts(params.rare, concept)
        case "unrelated":
            return ()


def rare_prompts(token: str, concept: Concept) -> tuple[str, ...]:
    """Return the concept's prompts with ``token`` in place of its name; those without the name are left out."""
    apart = (split_at_name(prompt, concept.name) for prompt in concept.prompts)
    return tuple(dict.fromkeys(token.join(texts) for texts in apart if len(texts) > 1))


class Trial(Params):
    """One trial of an attack by training on one model: what came back, evaluation step by evaluation step."""

    concept: str
    """Id."""
    model: str
    """Name of the model: ``hardened``, or a control as :attr:`TrainingParams.controls` names it."""
    seed: int = Field(ge=0)
    """Number of the trial; equal numbers of two models have the same images, noise and initial adapter."""
    evaluation_steps: tuple[Annotated[int, Field(ge=0, le=1_000_000)], ...]
    """Training steps, ascending."""
    hits: tuple[Annotated[int, Field(ge=0)], ...]
    """Images, of ``images_per_evaluation``, in which the scorer sees the concept."""
    images_per_evaluation: int = Field(ge=1)
    """Images generated after each evaluation step."""
    losses: tuple[float, ...]
    """Denoising loss on held-out images, with noise and timesteps that are the same everywhere."""
    similarity: tuple[float, ...]
    """Mean cosine similarity of the generated images' features with those of the reference images; empty: none."""
    full: float = Field(ge=0, le=1)
    """Rate at which the base model generates the concept when asked plainly: what counts as 1."""
    problem: str = ""
    """Reason why the trial ended early (a loss that is not finite); empty: it did not."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        lengths = {len(self.evaluation_steps), len(self.hits), len(self.losses)}
        if len(lengths) > 1 or len(self.similarity) not in (0, len(self.evaluation_steps)):
            raise ValueError("a trial has one value for each evaluation_step")
        if sorted(set(self.evaluation_steps)) != list(self.evaluation_steps):
            raise ValueError("evaluation_steps must ascend")
        if any(hits > self.images_per_evaluation for hits in self.hits):
            raise ValueError("a trial cannot have more hits than images")
        return self

    def gain(self, of: Literal["loss", "rate"], evaluation_step: int) -> float:
        """Return what the training has changed: how far the loss fell, or how much the rate of hits rose.

        Args:
            of: the denoising loss, or the share of images that show the concept.
            evaluation_step: training steps after which it is read.

        Raises:
            ValueError: the trial has no such evaluation step, or did not begin with 0.
        """
        if evaluation_step not in self.evaluation_steps or self.evaluation_steps[0] != 0:
            raise ValueError(f"there is no evaluation step of {evaluation_step} steps, or none of 0 to compare it with")
        at = self.evaluation_steps.index(evaluation_step)
        if of == "loss":
            return self.losses[0] - self.losses[at]
        return (self.hits[at] - self.hits[0]) / self.images_per_evaluation
