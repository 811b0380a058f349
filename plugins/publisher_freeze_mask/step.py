"""The step ``freeze-mask``: what a fine-tuning is to leave as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from publisher.api import Claim, ModelInfo, Requirements, Scope, Step, StepContext, StepPlan
from publisher.api.diffusion.process import require_trainable
from publisher.api.freeze_mask import FILE
from publisher_freeze_mask.claims import mask_claims
from publisher_freeze_mask.names import candidates
from publisher_freeze_mask.params import FreezeMaskParams
from publisher_freeze_mask.presets import resolve
from publisher_freeze_mask.selection import choose, choose_innocents, choose_tested

FAMILIES = ("stable-diffusion-1", "stable-diffusion-2", "stable-diffusion-xl")
BOUND = "the mask is good for these weights alone: a later step must not change what it freezes"


class FreezeMaskStep(Step[FreezeMaskParams]):
    """FreezeAsGuard, learned: a mask that is to cost fine-tuning on illegal concepts more than on innocent ones."""

    name = "freeze-mask"
    version = "1"
    summary = "FreezeAsGuard: tensors that an honest fine-tuning leaves as they are"
    requires = Requirements(families=FAMILIES, components=("unet", "vae", "text_encoder", "tokenizer", "scheduler"))
    references: ClassVar[bool] = True

    def claims(self, params: FreezeMaskParams, scope: Scope) -> Sequence[Claim]:
        """Selective; less left than random masks leave; innocents learned almost as well."""
        return mask_claims(choose(params, scope), choose_tested(params, scope), params)

    def plan(self, params: FreezeMaskParams, scope: Scope, model: ModelInfo) -> StepPlan:
        """Changes nothing; the artifact, and what the user should know before.

        Raises:
            ModelError: heads are asked for and do not divide a projection, or the model was trained in a way that is
                not known here.
            UsageError: no concept, nothing to keep, or a name that is neither.
        """
        choose(params, scope)
        choose_innocents(params, scope)
        candidates(params, model)
        if params.recipe != "random":
            require_trainable(model, images=True)
        return StepPlan(changes={}, artifacts=(FILE,), notes=_notes(resolve(params, model), model))

    def run(self, params: FreezeMaskParams, ctx: StepContext) -> None:
        """Learn the mask, write it, and say how it went.

        Raises:
            ModelError: a part of the model cannot be loaded.
            UsageError: images are missing, texts are too long, or a fine-tuning learned nothing or diverged.
        """
        from publisher_freeze_mask import summary
        from publisher_freeze_mask.make import artifact, make
        from publisher_freeze_mask.units import Units

        full, found = resolve(params, ctx.model), candidates(params, ctx.model)
        illegal, innocent = choose(params, ctx.scope), choose_innocents(params, ctx.scope)
        units = Units(found)
        masks = make(ctx, full, illegal, innocent, units)
        recipe = {
            "step": self.name,
            "version": self.version,
            "params": full.model_dump(mode="json", exclude={"check", "checkpoint_every"}),
            "illegal": [concept.id for concept in illegal],
            "innocent": [concept.id for concept in innocent],
        }
        mask = artifact(ctx, masks, found, recipe, full.granularity)
        ctx.artifact(FILE, mask.as_file())
        for row in summary.numbers(masks, mask, units):
            ctx.record(*row)
        for curve in summary.curves(masks.learned):
            ctx.curve(*curve)
        for warning in summary.warnings(masks.learned, full.score.tolerance):
            ctx.warn(warning)


def _notes(params: FreezeMaskParams, model: ModelInfo) -> tuple[str, ...]:
    tensors = model.tensors(model.anatomy.denoiser).values()
    total = sum(info.parameters for info in tensors)
    flat = [info.parameters for info in tensors if len(info.shape) <= 1]
    found = [
        BOUND,
        f"{len(flat)} of {len(tensors)} tensors have one axis, and {sum(flat) / total:.2%} of the parameters",
    ]
    if params.recipe in ("released", "random"):
        found.append(f"recipe {params.recipe} learns nothing: it is there to compare with")
    if params.count == "tensors":
        found.append("the ratio counts tensors: the share of parameters can be anything; read both in the report")
    if "sks" in params.rare:
        found.append("'sks' is what attacks use as their rare word: a test with it would say nothing about others")
    return tuple(found)
