"""A step that trains: prompts that name a concept come to say nothing to the denoiser."""

from pydantic import Field

from publisher import api
from publisher.api.claims import kept, not_generated
from publisher.api.diffusion.process import require_trainable


class HushParams(api.Params):
    steps: int = Field(default=200, ge=1, le=100_000, description="Training steps.")
    lr: float = Field(default=1e-4, gt=0, le=1, description="Learning rate of AdamW.")
    every: int = Field(default=50, ge=1, description="Training steps between two checkpoints.")


class Hush(api.Step[HushParams]):
    """Train what cross-attention reads of a text, until a concept's prompts mean what no prompt means."""

    name, version, summary = "hush", "1", "trains prompts to say nothing"
    requires = api.Requirements(needs=("cross-attention", "training"))

    def claims(self, params, scope):
        limits = ("It was trained on the concept's own prompts; other words for it were not.",)
        for concept in scope.concepts:
            yield not_generated(concept, "plain", binds="in-weights", limits=limits)
        yield from kept(scope, binds="in-weights")

    def plan(self, params, scope, model):
        require_trainable(model)
        names = [f"{layer}.to_{part}.weight" for layer in api.cross_attention(model) for part in "kv"]
        return api.StepPlan({model.anatomy.denoiser: names})

    def run(self, params, ctx):
        from publisher_hush.train import train

        ((denoiser, names),) = self.plan(params, ctx.scope, ctx.model).changes.items()
        for name, weight in train(params, ctx, names).items():
            ctx.write(denoiser, name, weight.to(ctx.model.read(denoiser, name).dtype))


@api.hookimpl
def publisher_register_steps():
    return [Hush]
