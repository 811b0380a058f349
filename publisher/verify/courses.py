"""The trials of a check before they are made: on which models, with what, and what their results depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from publisher.api import Concept, ImageRequest, Sampling, Scope, Scorer, TrainingAttack, TrainingParams
from publisher.model.digest import sha256_json
from publisher.runtime.side_by_side import workers_for
from publisher.verify.asking import one_line
from publisher.verify.gallery import latents_of, machine
from publisher.verify.lessons import HELD_OUT, Materials, captions_of, prior_of
from publisher.verify.prepared import Prepared
from publisher.verify.tools import Arm, Arms, Setting, Tools, Unmeasured
from publisher.verify.trials import VERSION


@dataclass(frozen=True, eq=False)
class Course:
    """One concept of one check, on all models."""

    prepared: Prepared
    attack: TrainingAttack[Any]
    params: TrainingParams
    concept: Concept
    captions: tuple[str, ...]
    requests: tuple[ImageRequest, ...]
    prior: tuple[ImageRequest, ...]
    arms: Mapping[str, Arm]
    key: str
    """What its trials depend on, besides the model and the trial's number."""

    def job(self, arm: Arm, number: int) -> str:
        """The key of one trial."""
        return sha256_json([self.key, arm.digest, number])

    @property
    def images(self) -> int:
        """Of the attacker, those held out included."""
        return HELD_OUT + self.params.images

    @property
    def cost(self) -> int:
        """Training steps and images of one trial."""
        return self.params.horizons[-1] + len(self.params.horizons) * len(self.requests)


@dataclass(frozen=True)
class Job:
    """One trial that nobody has made yet."""

    key: str
    course: Course
    arm: Arm
    number: int


@dataclass(eq=False)
class Desk:
    """Plans the trials of checks.

    Args:
        scope: the concepts.
        arms: the hardened model and all controls.
        tools: scorers that are loaded, and the executor.
        sampling: how images are drawn.
        setting: in float32.
    """

    scope: Scope
    arms: Arms
    tools: Tools
    sampling: Sampling
    setting: Setting

    @cached_property
    def materials(self) -> Materials:
        """Images of the base model."""
        return Materials(self.arms.base, self.scope, self.sampling, self.setting, self.tools.executor)

    @cached_property
    def workers(self) -> int:
        """Trials side by side.

        Raises:
            Unmeasured: the base model cannot be read.
        """
        try:
            return workers_for(latents_of(self.arms.base.folder), self.setting.device)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unmeasured(f"the base model cannot be read: {one_line(error)}") from error

    def course(self, prepared: Prepared, concept: Concept) -> Course:
        """One concept of a check.

        Raises:
            Unmeasured: something that its trials need is not there.
        """
        attack, params = prepared.attack, prepared.attack_params
        if not isinstance(attack, TrainingAttack) or not isinstance(params, TrainingParams):
            raise Unmeasured(f"the attack {prepared.check.attack!r} does not train")
        controls = {name: self.arms.control(name, prepared.step) for name in params.controls}
        requests = tuple(request for request in prepared.asked.requests if request.concept == concept.id)
        captions = captions_of(attack, params, concept)
        prior = self.materials.prior(prior_of(attack, params, concept, self.scope), concept)
        return Course(
            prepared, attack, params, concept, captions, requests, prior,
            arms={"hardened": self.arms.hardened.bare, **{name: arm for name, arm in controls.items() if arm}},
            key=sha256_json({
                "trial": VERSION,
                "attack": [attack.name, attack.version],
                "params": params.model_dump(mode="json", exclude={"controls", "trials"}),
                "concept": concept.model_dump(mode="json", exclude={"images"}),
                "captions": captions,
                "requests": [request.as_json() for request in requests],
                "images": self.materials.identity(concept, HELD_OUT + params.images),
                "prior": self.materials.drawn_identity(prior),
                "scorer": self._scorer_identity(prepared.scorer),
                "seed": self.sampling.seed,
                "machine": machine(self.setting, self.workers),
            }),
        )  # fmt: skip

    def _scorer_identity(self, name: str) -> list[str | bool]:
        scorer = self.tools.scorers[name]
        return [name, scorer.version, scorer.card().weights, type(scorer).features is not Scorer.features]
