"""A hardening step: dampen what prompts can say to the denoiser."""

from pydantic import Field

from publisher import api


class DampenParams(api.Params):
    strength: float = Field(default=0.5, ge=0, le=1, description="Share of each value projection that is taken away.")


class Dampen(api.Step[DampenParams]):
    """Multiply every cross-attention value projection by ``1 - strength``."""

    name, version, summary = "dampen", "1", "weakens every prompt"
    requires = api.Requirements(needs=("cross-attention",))

    def claims(self, params, scope):
        gate = api.Gate(upper_at_most=0.5)
        for concept in scope.concepts:
            check = api.Check(id=concept.id, attack="plain", metric="concept-rate", concepts=(concept.id,), gate=gate)
            sentence = f"{concept.name} is generated in at most half of the images"
            yield api.Claim(id=concept.id, sentence=sentence, binds="in-weights", checks=(check,))

    def plan(self, params, scope, model):
        return api.StepPlan({model.anatomy.denoiser: [f"{layer}.to_v.weight" for layer in api.cross_attention(model)]})

    def run(self, params, ctx):
        ((denoiser, names),) = self.plan(params, ctx.scope, ctx.model).changes.items()
        for done, name in enumerate(names, start=1):
            ctx.write(denoiser, name, ctx.model.read(denoiser, name) * (1 - params.strength))
            ctx.progress(done, len(names))


@api.hookimpl
def publisher_register_steps():
    return [Dampen]
