"""A hardening step: dampen what prompts can say to the denoiser."""

from pydantic import Field

from publisher import api


class DampenParams(api.Params):
    strength: float = Field(default=0.5, ge=0, le=1, description="Share of each value projection that is taken away.")


class Dampen(api.Step[DampenParams]):
    """Multiply every cross-attention value projection by ``1 - strength``."""

    name, version, summary = "dampen", "1", "weakens every prompt"
    requires = api.Requirements(components=("unet",))

    def claims(self, params, scope):
        gate = api.Gate(upper_at_most=0.5)
        for concept in scope.concepts:
            check = api.Check(id=concept.id, attack="plain", metric="concept-rate", concepts=(concept.id,), gate=gate)
            sentence = f"{concept.name} is generated in at most half of the images"
            yield api.Claim(id=concept.id, sentence=sentence, binds="in-weights", checks=(check,))

    def plan(self, params, scope, model):
        return api.StepPlan({"unet": [name for name in model.tensors("unet") if name.endswith("attn2.to_v.weight")]})

    def run(self, params, ctx):
        names = self.plan(params, ctx.scope, ctx.model).changes["unet"]
        for done, name in enumerate(names, start=1):
            ctx.write("unet", name, ctx.model.read("unet", name) * (1 - params.strength))
            ctx.progress(done, len(names))


@api.hookimpl
def publisher_register_steps():
    return [Dampen]
