"""FLUX.1 and Chroma: transformers of packed latents and text, trained by flow matching on T5's rows.

FLUX.1 dev is distilled: it reads the guidance scale as a number, and a training reads 1, which keeps the distillation.
FLUX.1 schnell and models like it read no such number; above a scale of 1 they get classifier-free guidance against the
empty text. Chroma always has that, reads no pooled vector, and is given T5's mask.

Nothing in these models says how large their images are. Their pipelines take 128 latent pixels (1024 pixels), and so
does the family, unless ``transformer/config.json`` has a ``sample_size``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import Anatomy, Latents, ModelFamily, TextBlock, TextEncoder
from publisher.api.diffusion.process import require_flow
from publisher.api.families import Capability, Configs
from publisher.builtin.families import class_of
from publisher.builtin.transformers import JOINT
from publisher.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from publisher.api.diffusion.text import Text

SIZE = 128
"""Latent pixels along each side where a model says none (``default_sample_size`` of the pipelines)."""
ROWS = 512
"""Rows of T5 that the pipelines ask for (``max_sequence_length``), padding among them."""
ROWS_SCHNELL = 256
"""The same of models that read no guidance scale: FLUX.1 schnell was trained on so many."""
_FLUX2 = "FLUX.2 has another text encoder, other latents and fused layers, which no family here knows"
_READS = "reads more than latents and words, so it cannot generate from words alone and be checked"
RELATIVES: Mapping[str, str] = {
    "FluxFillPipeline": f"FLUX.1 Fill {_READS}: an image and a mask stand beside the latents",
    "FluxControlPipeline": f"FLUX.1 Canny and Depth {_READS}: a picture of edges or depths stands beside the latents",
    "FluxControlInpaintPipeline": f"FLUX.1 Canny and Depth {_READS}: a picture stands beside the latents",
    "FluxKontextPipeline": f"FLUX.1 Kontext {_READS}: it is trained to change an image that it is given",
    "FluxKontextInpaintPipeline": f"FLUX.1 Kontext {_READS}: it is trained to change an image that it is given",
    "FluxPriorReduxPipeline": "FLUX.1 Redux makes text rows of an image, and has no denoiser of its own",
    "Flux2Pipeline": _FLUX2,
    "Flux2KleinPipeline": _FLUX2,
    "HiDreamImagePipeline": "HiDream reads layers of Llama 3.1 at all of its blocks, by 49 maps that no step knows",
}
"""Pipelines that look like FLUX.1's, and why they are refused."""
_HIDREAM = "text_encoder_4"
_HOSTS = (
    r"(?:transformer_blocks\.\d+\.(?:attn|ff|ff_context)\..+|"
    r"single_transformer_blocks\.\d+\.(?:attn\..+|proj_mlp|proj_out))\.weight"
)
"""All linear layers inside the blocks, but those that make scales and shifts (``norm.linear`` and its kind)."""


@dataclass(frozen=True)
class PackedTransformer(Anatomy):
    """A transformer that reads each 2 x 2 latent pixels as one token."""

    def pack(self, latents: Tensor) -> Tensor:
        """Return latents as tokens: ``(n, height / 2 * width / 2, 4 channels)``."""
        import torch.nn.functional as F

        return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)

    def unpack(self, tokens: Tensor) -> Tensor:
        """Return tokens as latents, ``(n, channels, height, width)``."""
        import torch.nn.functional as F

        height, width = self.latents.size
        folded = tokens.transpose(1, 2).reshape(len(tokens), -1, height // 2, width // 2)
        return F.pixel_shuffle(folded, 2)

    @property
    def rows(self) -> int:
        """Number of T5's rows."""
        return self.text_blocks[-1].rows

    def _places(self, x: Tensor, text: Text) -> dict[str, Tensor]:
        """Return where tokens stand: those of the text nowhere, those of the image in its rows and columns."""
        import torch

        height, width = self.latents.size
        image = torch.cartesian_prod(torch.zeros(1), torch.arange(height / 2), torch.arange(width / 2))
        return {"img_ids": image.to(x), "txt_ids": x.new_zeros(text.states.shape[1], 3)}


@dataclass(frozen=True)
class FluxTransformer(PackedTransformer):
    """A ``FluxTransformer2DModel`` and the pipelines of FLUX.1 around it."""

    distilled: bool = True
    """Whether the guidance scale is a number that the transformer reads."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return guidance as the transformer reads it, or classifier-free guidance, and the number of T5's rows."""
        scale = {"guidance_scale": guidance} if self.distilled else {"true_cfg_scale": guidance}
        return {**scale, "max_sequence_length": self.rows}

    def call_against(self, guidance: float) -> dict[str, Any]:
        """Return what a negative prompt changes: it takes classifier-free guidance, so a distilled scale becomes 1."""
        return {"guidance_scale": 1.0, "true_cfg_scale": guidance} if self.distilled else {}

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows of T5, and the pooled vectors of CLIP."""
        from publisher.api.diffusion.text import Text

        states, pooled, _ = pipeline.encode_prompt(
            list(texts), device=pipeline.text_encoder.device, max_sequence_length=self.rows
        )
        return Text(states.float(), pooled.float())

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the velocity, noise minus image; the timestep is the noise level, a distilled guidance 1."""
        (out,) = network(
            hidden_states=self.pack(x),
            timestep=(t / 1000).to(x.dtype),
            guidance=t.new_ones(len(t)) if self.distilled else None,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.states,
            **self._places(x, text),
            return_dict=False,
        )
        return self.unpack(out)


@dataclass(frozen=True)
class ChromaTransformer(PackedTransformer):
    """A ``ChromaTransformer2DModel`` and the pipelines of Chroma around it."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return the scale of classifier-free guidance, and the number of T5's rows."""
        return {"guidance_scale": guidance, "max_sequence_length": self.rows}

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows of T5 and their mask, of which the first padding is a part."""
        from publisher.api.diffusion.text import Text

        states, _, mask, *_ = pipeline.encode_prompt(
            list(texts),
            device=pipeline.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.rows,
        )
        return Text(states.float(), None, mask.float())

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the velocity, noise minus image; the timestep is the noise level, and all of the image counts."""
        import torch

        tokens = self.pack(x)
        mask = None if text.mask is None else text.mask.to(x.dtype)
        (out,) = network(
            hidden_states=tokens,
            timestep=(t / 1000).to(x.dtype),
            encoder_hidden_states=text.states,
            attention_mask=None if mask is None else torch.cat([mask, mask.new_ones(tokens.shape[:2])], dim=1),
            **self._places(x, text),
            return_dict=False,
        )
        return self.unpack(out)


_LACKS: Mapping[Capability, str] = {
    "cross-attention": JOINT,
    "clip-text": "the rows of a text are T5's",
}
_LORA = (
    *(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn.{name}" for name in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
)


class PackedFlow(ModelFamily):
    """A model of T5's rows and packed latents."""

    pipelines: ClassVar[tuple[str, ...]]
    """Names of diffusers' classes for this kind."""
    parts: ClassVar[Mapping[str, str]]
    """Folder of each part that has weights -> its class."""
    t5: ClassVar[str]
    """Folder of T5."""
    lacks: ClassVar[Mapping[Capability, str]] = _LACKS
    single_file = "denoiser"

    def recognise(self, configs: Configs) -> Anatomy | None:
        """Return the parts, or None; :meth:`why_not` says why.

        Raises:
            ModelError: a scheduler of another process; for FLUX.1, one of its relatives that reads an image too.
        """
        self.refuse(configs)
        if self.why_not(configs):
            return None
        require_flow(class_of(configs, "scheduler"))
        return self.anatomy(configs)

    def refuse(self, configs: Configs) -> None:
        """Refuse models that nobody else would explain."""

    def why_not(self, configs: Configs) -> str:
        """Return what of the structure is not of this family, in one sentence; empty if it is."""
        try:
            return self._parts(configs) or self._sizes(configs)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return f"its configurations are malformed ({type(error).__name__}: {error})"

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model of this kind."""
        raise NotImplementedError

    def _parts(self, configs: Configs) -> str:
        name = configs.get("model_index", {}).get("_class_name")
        if name not in self.pipelines:
            return f"its pipeline is {name!r}, which is none of {', '.join(self.pipelines)}"
        for component, kind in self.parts.items():
            if class_of(configs, component) != kind:
                return f"its {component} is {class_of(configs, component)!r}, not {kind}"
            if component.startswith("text_encoder") and not class_of(configs, _tokenizer(component)):
                return f"it has no {_tokenizer(component)}"
        return ""

    def _sizes(self, configs: Configs) -> str:
        transformer, vae = configs["transformer"], configs["vae"]
        read, latent = _channels(transformer), vae.get("latent_channels", 4)
        written = transformer.get("out_channels") or read
        if read != 4 * latent or written != read:
            return (
                f"its transformer reads {read} numbers a token and writes {written}, of 2 x 2 latent pixels with "
                f"{latent} channels: it reads more than latents and words"
            )
        if vae.get("shift_factor") is None:
            return "its autoencoder has no shift_factor, which its pipeline adds before it decodes"
        if any(size % 2 for size in _latents(configs).size):
            return "its sample_size is odd, and each token is 2 x 2 latent pixels"
        width, written = _width(transformer), configs[self.t5].get("d_model", 512)
        return "" if width == written else f"its transformer reads text {width} wide, its {self.t5} writes {written}"

    def _shared(self, configs: Configs, rows: int) -> dict[str, Any]:
        """Return what the anatomies have in common; T5's rows are as many as its tokenizer says, ``rows`` at most."""
        length = configs[_tokenizer(self.t5)].get("model_max_length", rows)
        return {
            "family": self.name,
            "denoiser": "transformer",
            "text_width": _width(configs["transformer"]),
            "latents": _latents(configs),
            "pipeline": self.pipelines[0],
            "predictions": ("flow",),
            "vae_keys": ("shift_factor",),
            "attention": ("attn",),
            "text_entry": ("context_embedder.weight",),
            "text_blocks": (TextBlock((self.t5,), min(rows, int(length))),),
            "lora_targets": _LORA,
            "hosts": _HOSTS,
            "halves": "separate",
        }


class Flux1(PackedFlow):
    """FLUX.1 dev and schnell, and every model of their structure."""

    name = "flux-1"
    version = "1"
    summary = "FLUX.1 dev and schnell: joint attention on T5's rows, and a pooled vector of CLIP"
    pipelines = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")
    parts: ClassVar[Mapping[str, str]] = {
        "transformer": "FluxTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
    }
    t5 = "text_encoder_2"

    def refuse(self, configs: Configs) -> None:
        """Refuse relatives of FLUX.1.

        Raises:
            ModelError: the model is one, with the reason.
        """
        name = str(configs.get("model_index", {}).get("_class_name"))
        if name not in RELATIVES:
            return
        why = RELATIVES[name]
        if name.startswith("HiDream") and not class_of(configs, _HIDREAM):
            why = f"HiDream's fourth text encoder ({_HIDREAM}, Llama 3.1) is not in the folder: nothing reads prompts"
        raise ModelError(why, where="model_index.json", hint=f"Known of this kind are: {', '.join(self.pipelines)}.")

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts, with the pooled vector's entry."""
        distilled = bool(configs["transformer"].get("guidance_embeds"))
        return FluxTransformer(
            **self._shared(configs, ROWS if distilled else ROWS_SCHNELL),
            text_encoders=(
                TextEncoder("text_encoder", "tokenizer", configs["text_encoder"].get("hidden_size", 512)),
                TextEncoder(self.t5, _tokenizer(self.t5), configs[self.t5].get("d_model", 512), "t5"),
            ),
            pooled_text=True,
            pooled_entry=("time_text_embed.text_embedder.linear_1.weight",),
            negative=None if distilled else "",
            distilled=distilled,
        )

    def _sizes(self, configs: Configs) -> str:
        pooled, read = configs["text_encoder"].get("hidden_size", 512), _pooled(configs["transformer"])
        if pooled != read:
            return f"its transformer reads a pooled vector {read} wide, its text_encoder writes {pooled}"
        return super()._sizes(configs)


class Chroma(PackedFlow):
    """Chroma: FLUX.1 without CLIP, without distilled guidance and with T5's mask."""

    name = "chroma"
    version = "1"
    summary = "Chroma: as FLUX.1, on T5's rows alone, with classifier-free guidance"
    pipelines = ("ChromaPipeline", "ChromaImg2ImgPipeline")
    parts: ClassVar[Mapping[str, str]] = {
        "transformer": "ChromaTransformer2DModel",
        "vae": "AutoencoderKL",
        "text_encoder": "T5EncoderModel",
    }
    t5 = "text_encoder"

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts."""
        width = configs[self.t5].get("d_model", 512)
        return ChromaTransformer(
            **self._shared(configs, ROWS),
            text_encoders=(TextEncoder(self.t5, _tokenizer(self.t5), width, "t5"),),
        )


def _tokenizer(encoder: str) -> str:
    return encoder.replace("text_encoder", "tokenizer")


def _channels(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("in_channels", 64))


def _width(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("joint_attention_dim", 4096))


def _pooled(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("pooled_projection_dim", 768))


def _latents(configs: Configs) -> Latents:
    return Latents.read(configs, "transformer", _channels(configs["transformer"]) // 4, default=SIZE)
