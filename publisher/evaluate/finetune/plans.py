"""The trials of a check before they are made: on which models, with what, and what their results depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from publisher.api import Concept, Frozen, ImageRequest, Sampling, Scope, TrainingAttack, TrainingParams
from publisher.api.training import UNSEEN
from publisher.errors import ModelError
from publisher.evaluate.context import ModelsUnderTest, ModelUnderTest, Setting, Tools, Unmeasured
from publisher.evaluate.finetune.data import HELD_OUT, AttackerImages, captions_of, prior_of, shown_of
from publisher.evaluate.finetune.trials import VERSION
from publisher.evaluate.images import machine
from publisher.evaluate.prepare import PreparedCheck
from publisher.evaluate.requests import params_for
from publisher.evaluate.scorers import identity
from publisher.model.digest import sha256_json
from publisher.runtime.side_by_side import workers_for
from publisher.safeguards import ALL


@dataclass(frozen=True, eq=False)
class TrialPlan:
    """One concept of one check, on all models."""

    prepared: PreparedCheck
    attack: TrainingAttack[Any]
    params: TrainingParams
    concept: Concept
    shown: Concept
    """The concept as the attacker's images show it: what is to stay, where they have nothing to do with it."""
    captions: tuple[str, ...]
    requests: tuple[ImageRequest, ...]
    prior: tuple[ImageRequest, ...]
    models: Mapping[str, ModelUnderTest]
    key: str
    """sha256 of all that its trials depend on, besides the model, the trial's number and what is frozen."""
    masks: Mapping[str, tuple[Frozen, ...]] = field(default_factory=dict)
    """Model's name -> what each of its trials leaves as it is."""

    def frozen(self, name: str, number: int) -> Frozen:
        """Return what one trial leaves as it is; empty: nothing."""
        return self.masks[name][number] if name in self.masks else {}

    def job(self, name: str, number: int) -> str:
        """Return the key of one trial of a model. Where nothing is frozen, checks share it."""
        digest = frozen_digest(self.frozen(name, number))
        kind = [UNSEEN] if name == UNSEEN else []
        return sha256_json([self.key, self.models[name].digest, number, *([digest] if digest else []), *kind])

    @property
    def scorer(self) -> str:
        """Id of the scorer that judges the images."""
        return self.prepared.scorers[self.concept.id]

    @property
    def images(self) -> int:
        """Number of the attacker's images, those held out included."""
        return HELD_OUT + self.params.images

    @property
    def cost(self) -> int:
        """Training steps and images of one trial: those that are encoded, and those that are generated."""
        encoded = self.images + len(self.prior)
        return encoded + self.params.evaluation_steps[-1] + len(self.params.evaluation_steps) * len(self.requests)


@dataclass(frozen=True)
class TrialJob:
    """One trial that nobody has made yet."""

    key: str
    plan: TrialPlan
    name: str
    """Name of the model."""
    number: int


@dataclass(eq=False)
class TrialPlanner:
    """Plans the trials of checks.

    Args:
        scope: the concepts.
        models: the hardened model and all controls.
        tools: the scorers and the executor.
        sampling: how images are generated.
        setting: in float32.
    """

    scope: Scope
    models: ModelsUnderTest
    tools: Tools
    sampling: Sampling
    setting: Setting

    @cached_property
    def attacker_images(self) -> AttackerImages:
        """Images of the base model."""
        return AttackerImages(self.models.base, self.scope, self.sampling, self.setting, self.tools.executor)

    @cached_property
    def workers(self) -> int:
        """Number of trials that run side by side."""
        return workers_for(self.models.base.anatomy.latents.size, self.setting.device)

    def plan(self, prepared: PreparedCheck, concept: Concept) -> TrialPlan:
        """Plan one concept of a check.

        Raises:
            Unmeasured: something that its trials need is not there.
        """
        attack, params = prepared.attack, params_for(prepared.attack_params, concept, self.scope)
        if not isinstance(attack, TrainingAttack) or not isinstance(params, TrainingParams):
            raise Unmeasured(f"the attack {prepared.check.attack!r} does not train")
        requests = tuple(request for request in prepared.asked.requests if request.concept == concept.id)
        captions, shown = captions_of(attack, params, concept, self.scope), shown_of(params, concept, self.scope)
        prior = self.attacker_images.prior(prior_of(attack, params, concept, self.scope), concept)
        return TrialPlan(
            prepared,
            attack,
            params,
            concept,
            shown,
            captions,
            requests,
            prior,
            models=self._models(attack, params, prepared.step),
            masks=self._masks(params),
            key=sha256_json(
                {
                    "trial": VERSION,
                    "attack": [attack.name, attack.version],
                    "params": params.model_dump(mode="json", exclude={"controls", "seeds", "mask", "kept_captions"}),
                    "concept": concept.model_dump(mode="json", exclude={"images"}),
                    "captions": captions,
                    "requests": [request.as_json() for request in requests],
                    "images": self.attacker_images.identity(shown, HELD_OUT + params.images),
                    "prior": self.attacker_images.generated_identity(prior),
                    "scorer": self._scorer_identity(prepared.scorers[concept.id]),
                    "seed": self.sampling.seed,
                    "machine": machine(self.setting, self.workers),
                    **({"learned_on": self.models.base.digest} if attack.learns_on_base else {}),
                }
            ),
        )

    def _models(self, attack: TrainingAttack[Any], params: TrainingParams, step: str) -> dict[str, ModelUnderTest]:
        """Return the hardened model and the controls that there are."""
        hardened = self.models.hardened.bare
        found = {
            name: hardened if params.is_masked(name) else self.models.control(name, step)
            for name in attack.controls(params)
        }
        return {"hardened": hardened, **{name: model for name, model in found.items() if model}}

    def _masks(self, params: TrainingParams) -> dict[str, tuple[Frozen, ...]]:
        """Return what the trials leave as it is, because the attacker honours the package's safeguards."""
        hardened, seed = self.models.hardened, self.sampling.seed
        folder, denoiser = hardened.safeguards, hardened.anatomy.denoiser
        try:
            return {name: rows for one in ALL for name, rows in one.frozen(params, folder, seed, denoiser).items()}
        except ModelError as error:
            raise Unmeasured(error.what) from error

    def _scorer_identity(self, name: str) -> dict[str, Any]:
        every = [identity(scorer) for scorer in self.tools.members(name)]
        return {"council": every} if len(every) > 1 else every[0] if every else {}


def frozen_digest(frozen: Frozen) -> str:
    """Return the sha256 that names what is frozen; empty: nothing is."""
    return sha256_json({name: list(rows) for name, rows in frozen.items()}) if frozen else ""
