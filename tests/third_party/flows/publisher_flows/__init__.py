"""A family of models: transformers with joint attention, trained by flow matching. And a step that works on them."""

from dataclasses import dataclass

from pydantic import Field

from publisher import api


@dataclass(frozen=True)
class JointAnatomy(api.Anatomy):
    """The parts of such a model. Its denoiser reads text rows, a pooled vector, and 1000 times the noise level."""

    def read_text(self, pipeline, texts):
        from publisher.api.diffusion.text import Text

        said = {"prompt": list(texts), "prompt_2": list(texts), "prompt_3": list(texts)}
        states, _, pooled, _ = pipeline.encode_prompt(
            **said, device=pipeline.text_encoder.device, do_classifier_free_guidance=False
        )
        return Text(states.float(), pooled.float())

    def predict(self, network, x, t, text):
        (out,) = network(x, text.states, text.pooled, t, return_dict=False)
        return out


class Joint(api.ModelFamily):
    """Models of ``StableDiffusion3PAGPipeline``: two CLIP text encoders and a T5, generated without PAG."""

    name, version, summary = "joint-attention", "1", "a transformer that attends to latents and text together"

    def recognise(self, configs):
        return None if self.why_not(configs) else self.anatomy(configs)

    def why_not(self, configs):
        name = configs["model_index"].get("_class_name")
        return "" if name == "StableDiffusion3PAGPipeline" else f"its pipeline is {name!r}"

    def anatomy(self, configs):
        config = configs["transformer"]
        encoders = tuple(
            api.TextEncoder(f"text_encoder{n}", f"tokenizer{n}", configs[f"text_encoder{n}"][size], kind)
            for n, size, kind in (("", "hidden_size", "clip"), ("_2", "hidden_size", "clip"), ("_3", "d_model", "t5"))
        )
        return JointAnatomy(
            family=self.name,
            denoiser="transformer",
            text_encoders=encoders,
            text_width=config["joint_attention_dim"],
            latents=api.Latents.read(configs, "transformer", config["in_channels"]),
            pipeline="StableDiffusion3Pipeline",
            pooled_text=True,
            predictions=("flow",),
            timesteps="logit-normal",
            vae_keys=("shift_factor",),
            constants=("pos_embed.pos_embed",),
            attention=("attn",),
            text_entry=("context_embedder.weight",),
            lora_targets=("to_q", "to_k", "to_v", "to_out.0"),
        )


class QuietParams(api.Params):
    strength: float = Field(default=0.5, ge=0, le=1, description="Share of the text's way into the model to take away.")


class Quiet(api.Step[QuietParams]):
    """Multiply the weights through which text enters by ``1 - strength``."""

    name, version, summary = "quiet", "1", "weakens every prompt at its entry"

    def claims(self, params, scope):
        gate = api.Gate(upper_at_most=0.9)
        for concept in scope.concepts:
            names = (concept.id,)
            check = api.Check(id=concept.id, attack="plain", metric="image-distance", concepts=names, gate=gate)
            sentence = f"images of {concept.name} are no others altogether"
            yield api.Claim(id=concept.id, sentence=sentence, binds="in-weights", checks=(check,))

    def plan(self, params, scope, model):
        return api.StepPlan({model.anatomy.denoiser: list(model.anatomy.text_entry)})

    def run(self, params, ctx):
        denoiser = ctx.model.anatomy.denoiser
        for name in ctx.model.anatomy.text_entry:
            ctx.write(denoiser, name, ctx.model.read(denoiser, name) * (1 - params.strength))


@api.hookimpl
def publisher_register_families():
    return [Joint]


@api.hookimpl
def publisher_register_steps():
    return [Quiet]
