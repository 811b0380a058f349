"""Stable Diffusion 3 and 3.5: a transformer whose attention reads latents and text together, trained by flow matching.

Text enters by one linear map of the rows (``context_embedder``) and one of the pooled vector. The ``attn2`` of some
blocks of 3.5 medium is a second attention of the image to itself; it never reads text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import Anatomy, Latents, ModelFamily, TextEncoder
from publisher.api.diffusion.process import require_flow
from publisher.api.families import Capability, Configs, TextBlock
from publisher.builtin.families import class_of
from publisher.builtin.transformers import JOINT, hosts_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from publisher.api.diffusion.text import Text

PIPELINES = tuple(f"StableDiffusion3{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))
CLIPS = ("text_encoder", "text_encoder_2")
T5 = "text_encoder_3"
T5_ROWS = 256
"""Rows of T5 that the pipeline asks for by default (``max_sequence_length``), padding among them. A model whose
tokenizer says fewer (``model_max_length``) is called with these."""
CLIP_ROWS = 77
"""Rows of CLIP where the tokenizer's configuration says none."""


@dataclass(frozen=True)
class JointTransformer(Anatomy):
    """An ``SD3Transformer2DModel`` and the pipelines of Stable Diffusion 3 around it."""

    t5_rows: int = T5_ROWS
    """Rows of T5 that the pipeline is asked for."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return guidance and the number of T5's rows."""
        return {"guidance_scale": guidance, "max_sequence_length": self.t5_rows}

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows of CLIP, those of T5 behind them (zeros where there is none), and the pooled vectors."""
        from publisher.api.diffusion.text import Text

        if pipeline.transformer is None:  # which the pipeline asks how wide the zeros for a missing T5 are
            pipeline.transformer = SimpleNamespace(config=SimpleNamespace(joint_attention_dim=self.text_width))
        said = {name: list(texts) for name in ("prompt", "prompt_2", "prompt_3")}
        states, _, pooled, _ = pipeline.encode_prompt(
            **said,
            device=pipeline.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.t5_rows,
        )
        return Text(states.float(), pooled.float())

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the velocity of flow matching, noise minus image; the timestep is 1000 times the noise level."""
        (out,) = network(x, text.states, text.pooled, t, return_dict=False)
        velocity: Tensor = out
        return velocity


class StableDiffusion3(ModelFamily):
    """Stable Diffusion 3 and 3.5, and every model of their structure, with or without T5."""

    name = "stable-diffusion-3"
    version = "1"
    summary = "Stable Diffusion 3 and 3.5: joint attention, two CLIP text encoders, T5 or none"
    lacks: ClassVar[Mapping[Capability, str]] = {
        "cross-attention": JOINT,
        "clip-text": "T5's rows, or zeros in their place, stand behind those of CLIP",
    }
    single_file = "denoiser"

    def recognise(self, configs: Configs) -> Anatomy | None:
        """Return the parts, or None; :meth:`why_not` says why.

        Raises:
            ModelError: its scheduler is none of flow matching, so the model would generate noise.
        """
        if self.why_not(configs):
            return None
        require_flow(class_of(configs, "scheduler"))
        return _anatomy(configs)

    def why_not(self, configs: Configs) -> str:
        """Return what of the structure is not of this family, in one sentence; empty if it is."""
        try:
            return _pipeline(configs) or _encoders(configs) or _sizes(configs)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return f"its configurations are malformed ({type(error).__name__}: {error})"


def _pipeline(configs: Configs) -> str:
    name = configs.get("model_index", {}).get("_class_name")
    if name not in PIPELINES:
        return f"its pipeline is {name!r}, which is none of {', '.join(PIPELINES)}"
    expected = {"transformer": "SD3Transformer2DModel", "vae": "AutoencoderKL"}
    for component, kind in expected.items():
        if class_of(configs, component) != kind:
            return f"its {component} is {class_of(configs, component)!r}, not {kind}"
    return ""


def _encoders(configs: Configs) -> str:
    expected = dict.fromkeys(CLIPS, "CLIPTextModelWithProjection")
    if class_of(configs, T5):
        expected[T5] = "T5EncoderModel"
    for component, kind in expected.items():
        if class_of(configs, component) != kind:
            return f"its {component} is {class_of(configs, component)!r}, not {kind}"
        tokenizer = component.replace("text_encoder", "tokenizer")
        if not class_of(configs, tokenizer):
            return f"it has no {tokenizer}"
    return ""


def _sizes(configs: Configs) -> str:
    transformer, vae = configs["transformer"], configs["vae"]
    channels = (transformer.get("in_channels", 16), transformer.get("out_channels", 16), vae.get("latent_channels", 4))
    if len(set(channels)) != 1:
        read, written, latent = channels
        return (
            f"its transformer reads {read} channels and writes {written}, its autoencoder has {latent}: it cannot "
            "generate from words alone and be checked"
        )
    if vae.get("shift_factor") is None:
        return "its autoencoder has no shift_factor, which its pipeline adds before it decodes"
    width, clip = _width(transformer), sum(configs[name].get("hidden_size", 512) for name in CLIPS)
    if clip > width:
        return f"its transformer reads text {width} wide, its CLIP text encoders write {clip} together"
    if class_of(configs, T5) and configs[T5].get("d_model", 512) != width:
        return f"its transformer reads text {width} wide, its {T5} writes {configs[T5].get('d_model', 512)}"
    pooled = sum(configs[name].get("projection_dim", 512) for name in CLIPS)
    read = transformer.get("pooled_projection_dim", 2048)
    return "" if pooled == read else f"its transformer reads a pooled vector {read} wide, its encoders write {pooled}"


def _anatomy(configs: Configs) -> Anatomy:
    transformer = configs["transformer"]
    encoders = [TextEncoder(name, _tokenizer(name), configs[name].get("hidden_size", 512)) for name in CLIPS]
    blocks = [TextBlock(CLIPS, int(configs["tokenizer"].get("model_max_length", CLIP_ROWS)))]
    rows = T5_ROWS
    if class_of(configs, T5):
        rows = min(T5_ROWS, int(configs.get(_tokenizer(T5), {}).get("model_max_length", T5_ROWS)))
        encoders.append(TextEncoder(T5, _tokenizer(T5), configs[T5].get("d_model", 512), "t5"))
        blocks.append(TextBlock((T5,), rows))
    return JointTransformer(
        family=StableDiffusion3.name,
        denoiser="transformer",
        text_encoders=tuple(encoders),
        text_width=_width(transformer),
        latents=Latents.read(configs, "transformer", transformer.get("in_channels", 16)),
        pipeline=PIPELINES[0],
        pooled_text=True,
        predictions=("flow",),
        timesteps="logit-normal",
        vae_keys=("shift_factor",),
        attention=("attn", "attn2") if transformer.get("dual_attention_layers") else ("attn",),
        text_entry=("context_embedder.weight",),
        pooled_entry=("time_text_embed.text_embedder.linear_1.weight",),
        text_blocks=tuple(blocks),
        lora_targets=(
            *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
            *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
        ),
        constants=("pos_embed.pos_embed",),
        t5_rows=rows,
        hosts=hosts_in("transformer_blocks", "attn2?", "ff", "ff_context"),
        halves="negative-first",
    )


def _tokenizer(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _width(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("joint_attention_dim", 4096))
