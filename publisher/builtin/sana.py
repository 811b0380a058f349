"""Sana: linear attention and cross-attention, flow matching in the latents of a deep autoencoder, behind Gemma 2.

Text goes through ``caption_projection``, two linear maps with a GELU between them, and a norm (``caption_norm``). Keys
and values of the cross-attention (``attn2``) of every block read what the norm returns, and nothing else does. So they
are the entry of the text: nothing can be folded into the layer before them, for the norm stands between.

The pipeline puts a long instruction before each prompt. It keeps the rows of the first token, and those from the last
token of the instruction on. The negative prompt has no instruction.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import Anatomy, Latents
from publisher.api.diffusion.process import require_flow
from publisher.api.families import Capability, Configs
from publisher.builtin.families import class_of
from publisher.builtin.transformers import (
    LANGUAGE_MODEL,
    OneEncoder,
    TransformerFamily,
    cross_attention_entry,
    hosts_in,
    project_caption,
    rms_norm,
    why_other_width,
)

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.diffusion.text import Text

ROWS = 300
"""Rows of text that the pipeline reads at most (``max_sequence_length``)."""
PIXELS = 32
"""What the pipeline wants height and width of an image to be multiples of."""


@dataclass(frozen=True)
class SanaAnatomy(OneEncoder):
    """A ``SanaTransformer2DModel`` and the pipeline of Sana around it."""

    timestep_scale: float = 1.0
    """What the transformer reads of a timestep: so many times it."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return guidance and rows; the size is the one asked for."""
        return {"guidance_scale": guidance, "max_sequence_length": ROWS, "use_resolution_binning": False}

    def heads(self, name: str, config: Mapping[str, Any]) -> int:
        """Return the number of attention heads in a tensor's rows: cross-attention has a number of its own."""
        if f".{self.cross_attention}." not in name:
            return super().heads(name, config)
        return int(config.get("num_cross_attention_heads") or 0) if self.has_heads(name) else 0

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows that are kept of instruction and text, and the mask that leaves out the padding."""
        from publisher.api.diffusion.text import Text

        states, mask, _, _ = pipeline.encode_prompt(
            list(texts),
            do_classifier_free_guidance=False,
            device=pipeline.text_encoder.device,
            max_sequence_length=ROWS,
            complex_human_instruction=_instruction(pipeline),
        )
        return Text(states.float(), mask=mask)

    def read_ids(self, pipeline: Any, text: str) -> tuple[tuple[int, ...], ...]:
        """Return the first token, and those from the instruction's last one on; the text is in small letters."""
        said = "\n".join(_instruction(pipeline))
        first, *rest = pipeline.tokenizer(said + text.lower().strip(), verbose=False).input_ids
        return ((first, *rest[len(pipeline.tokenizer.encode(said)) - 2 :]),)

    def enter(self, rows: Tensor, read: Callable[[str], Tensor]) -> Tensor:
        """Return the rows behind projection and norm."""
        return rms_norm(project_caption(rows, read), read("caption_norm.weight"), self.norm_eps)

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the velocity of flow matching, noise minus image: the first half, if a variance stands behind it."""
        (said,) = network(
            x,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            timestep=t * self.timestep_scale,
            return_dict=False,
        )
        velocity: Tensor = said[:, : x.shape[1]]
        return velocity


class Sana(TransformerFamily):
    """Sana and Sana 1.5, and every model of their structure; Sprint, which is distilled, is refused."""

    name = "sana"
    version = "1"
    summary = "Sana: linear attention and cross-attention, one causal language model behind an instruction"
    pipelines = ("SanaPipeline",)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("SanaTransformer2DModel",),
        "vae": ("AutoencoderDC",),
        "text_encoder": ("Gemma2Model",),
        "tokenizer": (),
    }
    lacks: ClassVar[Mapping[Capability, str]] = {"clip-text": LANGUAGE_MODEL}

    def require_scheduler(self, configs: Configs) -> None:
        """Refuse a scheduler that does not sample flow matching; a solver of another process can be told to.

        Raises:
            ModelError: it is another one, or missing.
        """
        require_flow(class_of(configs, "scheduler"), configs.get("scheduler", {}))

    def misfit(self, configs: Configs) -> str:
        """Return which sizes or options are not of this family, in one sentence; empty if all fit."""
        transformer, vae = configs["transformer"], configs["vae"]
        if transformer.get("guidance_embeds"):
            return "its transformer reads the guidance scale that it was distilled with (guidance_embeds)"
        read, latent = transformer.get("in_channels", 32), vae.get("latent_channels", 32)
        written = transformer.get("out_channels") or read
        if read != latent or written not in (read, 2 * read):
            return f"its transformer reads {read} channels and writes {written}, its autoencoder has {latent}"
        inner, width = _inner(transformer), transformer.get("cross_attention_dim", 2240)
        if width != inner:
            return f"its cross-attention reads text {width} wide, and text is projected to {inner}"
        latents, patch = _latents(configs), transformer.get("patch_size", 1)
        if any(size % patch for size in latents.size):
            return f"its sample_size is no multiple of its patches of {patch}"
        if any(size % PIXELS for size in latents.image_size):
            return f"its images have {latents.image_size} pixels, and its pipeline makes multiples of {PIXELS}"
        return why_other_width(_width(transformer), int(configs["text_encoder"]["hidden_size"]))

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model whose structure fits."""
        transformer = configs["transformer"]
        return self.joined(
            SanaAnatomy,
            _latents(configs),
            _width(transformer),
            ROWS,
            negative="",
            autoencoder="AutoencoderDC",
            cross_attention="attn2",
            attention=("attn1",),
            text_entry=cross_attention_entry(transformer.get("num_layers", 20)),
            entry_width=_inner(transformer),
            lora_targets=("to_q", "to_k", "to_v"),
            hosts=hosts_in("transformer_blocks", "attn1", "attn2", "ff"),
            halves="negative-first",
            timestep_scale=float(transformer.get("timestep_scale", 1.0)),
        )


def _instruction(pipeline: Any) -> list[str]:
    """Return what the pipeline puts before each prompt, line by line: the default of its call."""
    default: list[str] = inspect.signature(type(pipeline).__call__).parameters["complex_human_instruction"].default
    return default


def _width(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("caption_channels", 2304))


def _inner(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("num_attention_heads", 70) * transformer.get("attention_head_dim", 32))


def _latents(configs: Configs) -> Latents:
    found = Latents.read(configs, "transformer", configs["transformer"].get("in_channels", 32), default=32)
    blocks = configs["vae"].get("encoder_block_out_channels", (128, 256, 512, 512, 1024, 1024))
    return replace(found, pixels=2 ** (len(blocks) - 1))
