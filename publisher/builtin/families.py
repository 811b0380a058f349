"""Families of Stable Diffusion with a U-Net, recognised by structure: sizes do not matter, so a small model counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import Anatomy, Latents, ModelFamily, TextEncoder
from publisher.api.families import Capability, Configs

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.diffusion.text import Text

_TASKS = ("", "Img2Img", "Inpaint")
_CONDITIONING = {
    "class_embed_type": "reads a class beside the text",
    "encoder_hid_dim": "projects its text embeddings",
    "encoder_hid_dim_type": "projects its text embeddings",
    "num_class_embeds": "reads a class beside the text",
    "time_cond_proj_dim": "reads the guidance scale that it was distilled with",
}
"""Keys of a U-Net that reads more than a training gives it."""


@dataclass(frozen=True)
class UNetAnatomy(Anatomy):
    """A ``UNet2DConditionModel`` and the pipelines of Stable Diffusion around it."""

    def why_untrainable(self, config: Mapping[str, Any]) -> str:
        """Return which key makes it read more than latents, timesteps and text, or predict more than one value."""
        for key, what in _CONDITIONING.items():
            if config.get(key) is not None:
                return f"the denoiser {what} ({key} = {config[key]!r}), and training does not"
        addition = config.get("addition_embed_type")
        if addition not in (None, "text_time"):
            return f"the denoiser reads an additional embedding ({addition!r}), and training does not"
        read, written = config.get("in_channels", 4), config.get("out_channels", 4)
        if read != written:
            return f"the denoiser reads {read} channels and writes {written}: it predicts more than the noise"
        return ""

    def heads(self, name: str, config: Mapping[str, Any]) -> int:
        """Return the number of heads of the block that a tensor is in: one for all blocks, or one for each.

        diffusers calls the number of heads ``attention_head_dim`` in the configuration of a U-Net.
        """
        if not self.has_heads(name):
            return 0
        found = config.get("num_attention_heads") or config.get("attention_head_dim") or 1
        if isinstance(found, int):
            return found
        place = re.match(r"(down|up)_blocks\.(\d+)\.", name)
        if place is None:
            return int(found[-1])
        ordered = found if place[1] == "down" else found[::-1]
        return int(ordered[int(place[2])])

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return noise or velocity; SDXL also reads the pooled vector, and sizes of which nothing is cropped."""
        extra: dict[str, Any] = {}
        if text.pooled is not None:
            size = (x.shape[2] * self.latents.pixels, x.shape[3] * self.latents.pixels)
            ids = x.new_tensor([[*size, 0, 0, *size]])
            extra["added_cond_kwargs"] = {"text_embeds": text.pooled, "time_ids": ids.expand(len(x), -1)}
        (out,) = network(x, t, text.states, return_dict=False, **extra)
        prediction: Tensor = out
        return prediction


class StableDiffusion(ModelFamily):
    """A latent diffusion model with a U-Net whose cross-attention reads CLIP text encoders."""

    pipelines: ClassVar[tuple[str, ...]]
    """Names of diffusers' classes for this kind."""
    encoders: ClassVar[Mapping[str, str]]
    """Folder of each text encoder -> its class."""
    activations: ClassVar[tuple[str, ...]]
    """Activation of each text encoder: OpenAI's CLIP has ``quick_gelu``, OpenCLIP ``gelu``."""
    addition: ClassVar[str | None] = None
    """What the U-Net adds to its time embedding."""
    lacks: ClassVar[Mapping[Capability, str]] = {"text-entry": "text enters in every block, by cross-attention"}
    single_file = "all"

    def recognise(self, configs: Configs) -> Anatomy | None:
        """Return the parts, or None; :meth:`why_not` says why."""
        return None if self.why_not(configs) else self._anatomy(configs)

    def why_not(self, configs: Configs) -> str:
        """Return what of the structure is not of this family, in one sentence; empty if it is."""
        try:
            return self._pipeline(configs) or self._encoders(configs) or self._unet(configs) or self._fit(configs)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            return f"its configurations are malformed ({type(error).__name__}: {error})"

    def _pipeline(self, configs: Configs) -> str:
        name = configs.get("model_index", {}).get("_class_name")
        if name not in self.pipelines:
            return f"its pipeline is {name!r}, which is none of {', '.join(self.pipelines)}"
        denoiser = class_of(configs, "unet")
        return "" if denoiser == "UNet2DConditionModel" else f"its unet is {denoiser!r}, not UNet2DConditionModel"

    def _encoders(self, configs: Configs) -> str:
        names = ("text_encoder", "text_encoder_2", "text_encoder_3")
        present = tuple(name for name in names if class_of(configs, name))
        if present != tuple(self.encoders):
            return f"it has the text encoders {', '.join(present) or 'none'}, expected {', '.join(self.encoders)}"
        for (name, kind), activation in zip(self.encoders.items(), self.activations, strict=True):
            if class_of(configs, name) != kind:
                return f"its {name} is {class_of(configs, name)!r}, not {kind}"
            found = configs.get(name, {}).get("hidden_act", "quick_gelu")
            if found != activation:
                return f"its {name} has the activation {found!r}, expected {activation!r}"
            if not class_of(configs, _tokenizer(name)):
                return f"it has no {_tokenizer(name)}"
        return ""

    def _unet(self, configs: Configs) -> str:
        unet = configs.get("unet", {})
        channels = unet.get("in_channels", 4)
        if channels != 4:
            return f"its unet reads {channels} channels, not 4: it cannot generate from words alone and be checked"
        middle = unet.get("mid_block_type", "UNetMidBlock2DCrossAttn")
        blocks = [*unet.get("down_block_types", ()), middle, *unet.get("up_block_types", ())]
        odd = sorted({block for block in blocks if block not in _BLOCKS})
        if odd:
            return f"its unet has blocks of another make: {', '.join(odd)}"
        if not any(block in _CROSS for block in blocks):
            return "its unet has no cross-attention"
        return self._conditioning(unet)

    def _conditioning(self, unet: Mapping[str, Any]) -> str:
        if unet.get("addition_embed_type") != self.addition:
            return f"its unet has the additional embedding {unet.get('addition_embed_type')!r}, not {self.addition!r}"
        if any(unet.get(key) for key in ("dual_cross_attention", "encoder_hid_dim", "encoder_hid_dim_type")):
            return "its unet has a cross-attention of another make (dual, or with a projection before it)"
        alone = unet.get("only_cross_attention") or False
        if alone if isinstance(alone, bool) else any(alone):
            return "its unet has a cross-attention of another make (attn1 reads the text too)"
        if unet.get("class_embed_type") or unet.get("num_class_embeds"):
            return "its unet reads a class beside the text, which no prompt gives"
        return ""

    def _fit(self, configs: Configs) -> str:
        read, written = _text_width(configs), sum(_width(configs, name) for name in self.encoders)
        return "" if read == written else f"its unet reads text {read} wide, its text encoders write {written}"

    def _anatomy(self, configs: Configs) -> Anatomy:
        wide = len(self.encoders) > 1
        return UNetAnatomy(
            family=self.name,
            denoiser="unet",
            latents=Latents.read(configs, "unet", configs["unet"].get("in_channels", 4)),
            pipeline=self.pipelines[0],
            text_encoders=tuple(TextEncoder(name, _tokenizer(name), _width(configs, name)) for name in self.encoders),
            text_width=_text_width(configs),
            penultimate=wide,
            pooled_text=wide,
            empty_is_zeros=wide and bool(configs["model_index"].get("force_zeros_for_empty_prompt", True)),
            vae_keys=("latents_mean", "latents_std") if wide else (),
            cross_attention="attn2",
            attention=("attn1",),
            lora_targets=("to_q", "to_k", "to_v", "to_out.0"),
            conv_targets=("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
            hosts=_HOSTS,
            halves="negative-first",
        )


class StableDiffusion1(StableDiffusion):
    """Stable Diffusion 1.x, and every model of its structure."""

    name = "stable-diffusion-1"
    version = "1"
    summary = "Stable Diffusion 1.x: one CLIP text encoder of OpenAI's make"
    pipelines = tuple(f"StableDiffusion{task}Pipeline" for task in _TASKS)
    encoders: ClassVar[Mapping[str, str]] = {"text_encoder": "CLIPTextModel"}
    activations = ("quick_gelu",)


class StableDiffusion2(StableDiffusion):
    """Stable Diffusion 2.x: as 1.x, with an OpenCLIP text encoder."""

    name = "stable-diffusion-2"
    version = "1"
    summary = "Stable Diffusion 2.x: one OpenCLIP text encoder"
    pipelines = StableDiffusion1.pipelines
    encoders = StableDiffusion1.encoders
    activations = ("gelu",)


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL, base: two text encoders and a pooled text vector. The refiner alone is refused."""

    name = "stable-diffusion-xl"
    version = "1"
    summary = "Stable Diffusion XL base: two text encoders and a pooled text vector"
    pipelines = tuple(f"StableDiffusionXL{task}Pipeline" for task in _TASKS)
    encoders: ClassVar[Mapping[str, str]] = {
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
    }
    activations = ("quick_gelu", "gelu")
    addition = "text_time"


FAMILIES: tuple[type[ModelFamily], ...] = (StableDiffusion1, StableDiffusion2, StableDiffusionXL)

_CROSS = ("CrossAttnDownBlock2D", "UNetMidBlock2DCrossAttn", "CrossAttnUpBlock2D")
_BLOCKS = (*_CROSS, "DownBlock2D", "UNetMidBlock2D", "UpBlock2D", None)
_HOSTS = (
    r"(?P<transformer>(?:(?:down|up)_blocks\.\d+|mid_block)\.attentions\.\d+)"
    r"(?P<block>\.transformer_blocks\.\d+)?\.(?P<rest>.+)\.weight"
)


def class_of(configs: Configs, component: str) -> str | None:
    """Return the class that the index names for a component; None: it names none, or there is no such component."""
    entry = configs.get("model_index", {}).get(component)
    return entry[1] if isinstance(entry, (list, tuple)) and len(entry) == 2 else None


def _tokenizer(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _width(configs: Configs, encoder: str) -> int:
    return int(configs.get(encoder, {}).get("hidden_size", 512))


def _text_width(configs: Configs) -> int:
    width = configs["unet"].get("cross_attention_dim", 1280)
    return int(width if isinstance(width, int) else width[0])
