"""Qwen-Image: a transformer with joint attention that reads the last states of a causal language model.

Text enters by one linear map of the rows (``txt_in``) behind a norm (``txt_norm``). The pipeline puts the prompt into a
chat template and drops the rows of what stands before it; the rows of what stands behind, the end of the user's turn,
carry the whole prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import Anatomy, Latents
from publisher.api.families import Capability, Configs
from publisher.builtin.flux import PackedTransformer
from publisher.builtin.transformers import (
    JOINT,
    LANGUAGE_MODEL,
    TransformerFamily,
    hosts_in,
    rms_norm,
    why_other_width,
)

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.diffusion.text import Text

ROWS = 512
"""Rows of text that the pipeline reads at most (``max_sequence_length``)."""
SIZE = 128
"""Height and width of the latents where the configuration says none: those of images of 1024 pixels."""
SPECIAL: Mapping[str, str] = {
    "guidance_embeds": "reads the guidance scale that it was distilled with",
    "use_additional_t_cond": "reads another condition beside the noise level",
    "use_layer3d_rope": "makes several layers of an image at once",
    "zero_cond_t": "reads an image beside the text",
}
"""Options of a transformer that does something else than to make an image of words."""


@dataclass(frozen=True)
class QwenImageAnatomy(PackedTransformer):
    """A ``QwenImageTransformer2DModel`` and the pipelines of Qwen-Image around it."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return the scale of guidance by its name here; ``guidance_scale`` is for distilled models, and ignored."""
        return {"true_cfg_scale": guidance, "max_sequence_length": self.rows}

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows behind the template's beginning; the mask leaves out what fills up shorter texts."""
        from publisher.api.diffusion.text import Text

        states, mask = pipeline.encode_prompt(
            prompt=list(texts), device=pipeline.text_encoder.device, max_sequence_length=self.rows
        )
        whole = states.new_ones(states.shape[:2]).long()  # the pipeline says None where nothing is filled up
        return Text(states.float(), mask=whole if mask is None else mask)

    def read_ids(self, pipeline: Any, text: str) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of the prompt and of the template behind it."""
        told = pipeline.prompt_template_encode.format(text)
        return (tuple(pipeline.tokenizer(told, verbose=False).input_ids[pipeline.prompt_template_encode_start_idx :]),)

    def enter(self, rows: Tensor, read: Callable[[str], Tensor]) -> Tensor:
        """Return the rows behind the norm."""
        return rms_norm(rows, read("txt_norm.weight"), 1e-6)

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the velocity of flow matching, noise minus image; the timestep is the noise level."""
        height, width = self.latents.size
        (out,) = network(
            hidden_states=self.pack(x),
            timestep=t / 1000,
            encoder_hidden_states=text.states,
            encoder_hidden_states_mask=None if text.mask is None or bool(text.mask.all()) else text.mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
            return_dict=False,
        )
        return self.unpack(out)


class QwenImage(TransformerFamily):
    """Qwen-Image, and every model of its structure; models that edit a given image are refused."""

    name = "qwen-image"
    version = "1"
    summary = "Qwen-Image: joint attention, one causal language model with a chat template"
    pipelines = tuple(f"QwenImage{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("QwenImageTransformer2DModel",),
        "vae": ("AutoencoderKLQwenImage",),
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
        "tokenizer": (),
    }

    lacks: ClassVar[Mapping[Capability, str]] = {
        "cross-attention": JOINT,
        "clip-text": LANGUAGE_MODEL,
    }

    def misfit(self, configs: Configs) -> str:
        """Return which sizes or options are not of this family, in one sentence; empty if all fit."""
        transformer, vae = configs["transformer"], configs["vae"]
        for option, what in SPECIAL.items():
            if transformer.get(option):
                return f"its transformer {what} ({option}), and words alone do not give it that"
        read, written = transformer.get("in_channels", 64), 4 * (transformer.get("out_channels") or 16)
        latent = 4 * vae.get("z_dim", 16)
        if not read == written == latent:
            return (
                f"its transformer reads {read} numbers a patch and writes {written}, its autoencoder has {latent}: it "
                "cannot generate from words alone and be checked"
            )
        if transformer.get("patch_size", 2) != 2:
            return f"its transformer has patches of {transformer['patch_size']}, not 2"
        if any(size % 2 for size in _latents(configs).size):
            return "its sample_size is odd, and each token is 2 x 2 latent pixels"
        return why_other_width(_width(transformer), _states(configs))

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model whose structure fits."""
        return self.joined(
            QwenImageAnatomy,
            _latents(configs),
            _width(configs["transformer"]),
            ROWS,
            negative=" ",
            autoencoder="AutoencoderKLQwenImage",
            vae_keys=("latents_mean", "latents_std"),
            attention=("attn",),
            text_entry=("txt_in.weight",),
            hosts=hosts_in("transformer_blocks", "attn", "img_mlp", "txt_mlp"),
            halves="separate",
        )


def _width(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("joint_attention_dim", 3584))


def _states(configs: Configs) -> int:
    """Return the width of the language model's states; its configuration stands inside that of the whole model."""
    encoder = configs["text_encoder"]
    return int(encoder.get("text_config", encoder)["hidden_size"])


def _latents(configs: Configs) -> Latents:
    found = Latents.read(configs, "transformer", configs["transformer"].get("in_channels", 64) // 4, default=SIZE)
    return replace(found, pixels=2 ** len(configs["vae"].get("temperal_downsample", (False, True, True))))
