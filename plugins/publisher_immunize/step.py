"""The step ``immunize``: weights, of attention or of the denoiser, from which a concept comes back late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from publisher.api import Claim, ModelInfo, Requirements, Scope, Step, StepContext, StepPlan
from publisher.api.diffusion.process import require_trainable
from publisher_immunize.claims import immunize_claims
from publisher_immunize.params import ImmunizeParams
from publisher_immunize.plan import choose, choose_kept, exported, notes, require_possible
from publisher_immunize.presets import resolve


class Immunize(Step[ImmunizeParams]):
    """MIMA and IMMA: simulate adaptations to the concepts, and move the weights to where they fail."""

    name = "immunize"
    version = "2"
    summary = "MIMA, IMMA: fine-tuning brings erased or protected concepts back late"
    requires = Requirements(needs=("training",), components=("vae", "scheduler"))
    references: ClassVar[bool] = True
    undone_by: ClassVar[Mapping[str, str]] = {
        "erase": "it edits how text enters, or trains the denoiser, and the weights were immunised as they were before"
    }

    def decide(self, params: ImmunizeParams, scope: Scope, model: ModelInfo) -> ImmunizeParams:
        """Take from the preset what the manifest leaves open.

        Raises:
            UsageError: no concept.
        """
        return resolve(params, scope, model)

    def claims(self, params: ImmunizeParams, scope: Scope) -> Sequence[Claim]:
        """Promise late re-learning, innocents learned as fast, kept concepts; state what copied attention gives."""
        return immunize_claims(choose(params, scope), scope, params)

    def plan(self, params: ImmunizeParams, scope: Scope, model: ModelInfo) -> StepPlan:
        """Name the tensors of the outer set, and what the user should know before.

        Raises:
            ModelError: attention is not where the family has it, the parameters ask for what the family has not, or the
                model was trained in a way that is not known here.
            UsageError: no concept, nothing to keep where a term needs it, or a prompt to keep that calls a concept by
                its name or a synonym.
        """
        params = self.decide(params, scope, model)
        require_possible(params, model.anatomy)
        chosen, _ = choose(params, scope), choose_kept(params, scope)
        names = exported(model, params.outer)
        require_trainable(model, images=True)
        drawn = tuple(concept.id for concept in chosen if not concept.images)
        return StepPlan(changes={model.anatomy.denoiser: names}, notes=notes(params, chosen, scope), draws=drawn)

    def run(self, params: ImmunizeParams, ctx: StepContext) -> None:
        """Train, write the weights, and say how it went.

        Raises:
            ModelError: a part of the model cannot be loaded.
            UsageError: images are missing, texts are too long or cannot be merged, or the losses diverge.
        """
        from publisher.api.diffusion.writing import write_trained
        from publisher_immunize.train import curves, numbers, train

        full = self.decide(params, ctx.scope, ctx.model)
        names = exported(ctx.model, full.outer)
        trained = train(ctx, full, choose(full, ctx.scope), choose_kept(full, ctx.scope), names)
        write_trained(ctx, {name: trained.weights[name] for name in names})
        if trained.stopped:
            ctx.warn(trained.stopped)
        for row in numbers(trained.losses):
            ctx.record(*row)
        for curve in curves(trained):
            ctx.curve(*curve)
