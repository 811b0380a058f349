"""The step ``freeze-mask``: what a fine-tuning is to leave as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from publisher.api import Claim, ModelInfo, Requirements, Scope, Step, StepContext, StepPlan
from publisher.api.diffusion.process import require_trainable
from publisher.api.freeze_mask import FILE
from publisher_freeze_mask.claims import mask_claims
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.plan import candidates, choose, choose_innocents, choose_tested, notes
from publisher_freeze_mask.presets import resolve


class FreezeMaskStep(Step[FreezeMaskParams]):
    """FreezeAsGuard, learned: a mask that is to cost fine-tuning on illegal concepts more than on innocent ones."""

    name = "freeze-mask"
    version = "1"
    summary = "FreezeAsGuard: tensors that an honest fine-tuning leaves as they are"
    requires = Requirements(needs=("training",), components=("vae", "scheduler"))
    references: ClassVar[bool] = True

    def decide(self, params: FreezeMaskParams, scope: Scope, model: ModelInfo) -> FreezeMaskParams:  # noqa: ARG002
        """Take from the preset what the manifest leaves open."""
        return resolve(params, model)

    def claims(self, params: FreezeMaskParams, scope: Scope) -> Sequence[Claim]:
        """Promise a selective mask: less is left than random masks leave, and innocents are learned almost as well."""
        return mask_claims(choose(params, scope), choose_tested(params, scope), params)

    def plan(self, params: FreezeMaskParams, scope: Scope, model: ModelInfo) -> StepPlan:
        """Name the artifact, no tensor, and what the user should know before.

        Raises:
            ModelError: heads are asked for and do not divide a projection, or the model was trained in a way that is
                not known here.
            UsageError: no concept, nothing to keep, or a name that is neither.
        """
        params = self.decide(params, scope, model)
        choose(params, scope)
        choose_innocents(params, scope)
        candidates(params, model)
        if params.recipe != "random":
            require_trainable(model, images=True)
        return StepPlan(changes={}, artifacts=(FILE,), notes=notes(params, model))

    def run(self, params: FreezeMaskParams, ctx: StepContext) -> None:
        """Learn the mask, write it, and say how it went.

        Raises:
            ModelError: a part of the model cannot be loaded.
            UsageError: images are missing, texts are too long, or a fine-tuning learned nothing or diverged.
        """
        from publisher_freeze_mask import report
        from publisher_freeze_mask.learn import artifact, learn_masks
        from publisher_freeze_mask.units import Units

        params = self.decide(params, ctx.scope, ctx.model)
        found = candidates(params, ctx.model)
        illegal, innocent = choose(params, ctx.scope), choose_innocents(params, ctx.scope)
        units = Units(found)
        masks = learn_masks(ctx, params, illegal, innocent, units)
        recipe = {
            "step": self.name,
            "version": self.version,
            "params": params.model_dump(mode="json", exclude={"check", "checkpoint_every", "preset"}),
            "illegal": [concept.id for concept in illegal],
            "innocent": [concept.id for concept in innocent],
        }
        mask = artifact(ctx, masks, found, recipe, params.granularity)
        ctx.artifact(FILE, mask.as_file())
        for row in report.numbers(masks, mask, units):
            ctx.record(*row)
        for curve in report.curves(masks.learned):
            ctx.curve(*curve)
        for warning in report.warnings(masks.learned, params.score.tolerance):
            ctx.warn(warning)
