"""Lumina Image 2: one stream of image and text, that reads the states before the last layer of Gemma 2.

The network says the image minus the noise, at a time that runs from noise to image; :meth:`LuminaAnatomy.predict` turns
both round. Text enters by one linear map of the rows (``caption_embedder.1``) behind a norm (``caption_embedder.0``). A
system prompt stands before each prompt, and its rows are read too: they take most of the rows that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import Anatomy, Latents
from publisher.api.families import Capability, Configs
from publisher.builtin.transformers import (
    JOINT,
    LANGUAGE_MODEL,
    OneEncoder,
    TransformerFamily,
    hosts_in,
    rms_norm,
    why_other_width,
)

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.diffusion.text import Text

ROWS = 256
"""Rows of text that the pipeline reads at most (``max_sequence_length``), the system prompt's among them."""
BLOCKS = 4
"""Blocks of the autoencoder: the pipeline takes 8 pixels for a latent pixel, whatever it has."""
_DOOR = "time_caption_embed.caption_embedder"


@dataclass(frozen=True)
class LuminaAnatomy(OneEncoder):
    """A ``Lumina2Transformer2DModel`` and the pipeline of Lumina Image 2 around it."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return the scale of guidance, and the number of rows."""
        return {"guidance_scale": guidance, "max_sequence_length": ROWS}

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows of the system prompt and the text, and the mask that leaves out the padding."""
        from publisher.api.diffusion.text import Text

        states, mask, _, _ = pipeline.encode_prompt(
            list(texts),
            do_classifier_free_guidance=False,
            device=pipeline.text_encoder.device,
            max_sequence_length=ROWS,
        )
        return Text(states.float(), mask=mask)

    def read_ids(self, pipeline: Any, text: str) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of the system prompt and the text."""
        told = f"{pipeline.system_prompt} <Prompt Start> {text}"
        return (tuple(pipeline.tokenizer(told, verbose=False).input_ids),)

    def enter(self, rows: Tensor, read: Callable[[str], Tensor]) -> Tensor:
        """Return the rows behind the norm."""
        return rms_norm(rows, read(f"{_DOOR}.0.weight"), self.norm_eps)

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the velocity of flow matching, noise minus image: what the network says, with the other sign."""
        import torch

        mask = torch.ones(text.states.shape[:2], device=x.device).long() if text.mask is None else text.mask
        (said,) = network(
            hidden_states=x,
            timestep=1 - t / 1000,
            encoder_hidden_states=text.states,
            encoder_attention_mask=mask,
            return_dict=False,
        )
        velocity: Tensor = -said
        return velocity


class Lumina2(TransformerFamily):
    """Lumina Image 2, and every model of its structure."""

    name = "lumina-2"
    version = "1"
    summary = "Lumina Image 2: one stream of image and text, one causal language model with a system prompt"
    pipelines = ("Lumina2Pipeline", "Lumina2Text2ImgPipeline")
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("Lumina2Transformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("Gemma2Model",),
        "tokenizer": (),
    }
    lacks: ClassVar[Mapping[Capability, str]] = {
        "cross-attention": JOINT,
        "clip-text": LANGUAGE_MODEL,
    }

    def misfit(self, configs: Configs) -> str:
        """Return which sizes or options are not of this family, in one sentence; empty if all fit."""
        transformer, vae = configs["transformer"], configs["vae"]
        read, latent = transformer.get("in_channels", 16), vae.get("latent_channels", 4)
        written = transformer.get("out_channels") or read
        if not read == written == latent:
            return f"its transformer reads {read} channels and writes {written}, its autoencoder has {latent}"
        if vae.get("shift_factor") is None:
            return "its autoencoder has no shift_factor, which its pipeline adds before it decodes"
        blocks = len(vae.get("block_out_channels", (64,)))
        if blocks != BLOCKS:
            return f"its autoencoder has {blocks} blocks, and its pipeline counts on {BLOCKS}"
        return why_other_width(_width(transformer), int(configs["text_encoder"]["hidden_size"]))

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model whose structure fits."""
        transformer = configs["transformer"]
        return self.joined(
            LuminaAnatomy,
            Latents.read(configs, "transformer", transformer.get("in_channels", 16), default=128),
            _width(transformer),
            ROWS,
            vae_keys=("shift_factor",),
            attention=("attn",),
            text_entry=(f"{_DOOR}.1.weight",),
            hosts=hosts_in("layers", "attn", "feed_forward"),  # the refiners before them have none
            halves="separate",
            head_keys=("num_attention_heads", "num_kv_heads"),
            norm_eps=float(transformer.get("norm_eps", 1e-5)),
        )


def _width(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("cap_feat_dim", 1024))
