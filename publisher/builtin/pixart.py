"""PixArt-alpha and PixArt-Sigma: a transformer with cross-attention, trained to say the noise, on T5's rows.

All text enters by ``caption_projection``, two linear maps with a GELU between them. Keys and values of the
cross-attention (``attn2``) of every block read what it writes, and nothing else does: it depends on the text alone. So
a map of these rows can be folded into the last layer of the projection, where it is two tensors and not two a block.

Most of these networks say twice as many channels as they read: the noise, and a variance that the pipelines drop.
PixArt-alpha of 1024 pixels also reads the height and the width of its image, and their ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from publisher.api import Anatomy, Latents
from publisher.api.families import Capability, Configs
from publisher.builtin.transformers import (
    OneEncoder,
    TransformerFamily,
    cross_attention_entry,
    hosts_in,
    project_caption,
    why_other_width,
)

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.api.diffusion.text import Text

ROWS: Mapping[str, int] = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}
"""Pipeline -> rows of T5 that it reads at most (``max_sequence_length``)."""
SIZED = 128
"""``sample_size`` of a PixArt-alpha that reads the size of its image; its pipeline goes by this number alone."""
_LAST = "caption_projection.linear_2"


@dataclass(frozen=True)
class PixArtAnatomy(OneEncoder):
    """A ``PixArtTransformer2DModel`` and one of the two pipelines around it."""

    sized: bool = False
    """Whether the transformer reads the size of the image."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return guidance and rows; the size is the one asked for, and prompts are those given but for their case."""
        return {
            "guidance_scale": guidance,
            "max_sequence_length": self.rows,
            "use_resolution_binning": False,
            "clean_caption": False,
        }

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows of T5, and the mask that leaves out the padding."""
        from publisher.api.diffusion.text import Text

        states, mask, _, _ = pipeline.encode_prompt(
            list(texts),
            do_classifier_free_guidance=False,
            device=pipeline.text_encoder.device,
            clean_caption=False,
            max_sequence_length=self.rows,
        )
        return Text(states.float(), mask=mask)

    def read_ids(self, pipeline: Any, text: str) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of the text in small letters, as the pipeline reads it."""
        return (tuple(pipeline.tokenizer(text.lower().strip(), verbose=False).input_ids),)

    def enter(self, rows: Tensor, read: Callable[[str], Tensor]) -> Tensor:
        """Return the rows behind the projection."""
        return project_caption(rows, read)

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the noise, or velocity: the first of the two halves that a network with a variance says."""
        height, width = self.latents.image_size
        size = {"resolution": [height, width], "aspect_ratio": [height / width]} if self.sized else {}
        (said,) = network(
            x,
            encoder_hidden_states=text.states,
            encoder_attention_mask=text.mask,
            timestep=t,
            added_cond_kwargs={
                name: x.new_tensor([size[name]]).expand(len(x), -1) if size else None
                for name in ("resolution", "aspect_ratio")
            },
            return_dict=False,
        )
        prediction: Tensor = said[:, : x.shape[1]]
        return prediction


class PixArt(TransformerFamily):
    """PixArt-alpha and PixArt-Sigma, and every model of their structure."""

    name = "pixart"
    version = "1"
    summary = "PixArt-alpha and PixArt-Sigma: cross-attention on T5's rows, trained to say the noise"
    pipelines = tuple(ROWS)
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("PixArtTransformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("T5EncoderModel",),
        "tokenizer": (),
    }
    lacks: ClassVar[Mapping[Capability, str]] = {"clip-text": "the rows of a text are T5's"}

    def require_scheduler(self, configs: Configs) -> None:
        """Take any, as of a U-Net: what is trained on is asked when something is to be trained."""

    def misfit(self, configs: Configs) -> str:
        """Return which sizes or options are not of this family, in one sentence; empty if all fit."""
        transformer, vae = configs["transformer"], configs["vae"]
        read, latent = transformer.get("in_channels", 4), vae.get("latent_channels", 4)
        written = transformer.get("out_channels", 8) or read
        if read != latent or written not in (read, 2 * read):
            return f"its transformer reads {read} channels and writes {written}, its autoencoder has {latent}"
        if transformer.get("caption_channels") is None:
            return "its transformer has no caption_projection, by which text enters"
        inner = _inner(transformer)
        if transformer.get("cross_attention_dim", 1152) != inner:
            width = transformer["cross_attention_dim"]
            return f"its cross-attention reads text {width} wide, and text is projected to {inner}"
        size, patch = transformer.get("sample_size", 128), transformer.get("patch_size", 2)
        if not isinstance(size, int) or size % patch:
            return f"its sample_size {size!r} is no multiple of its patches of {patch}"
        alone = _pipeline(configs) == "PixArtAlphaPipeline" and size == SIZED
        if _sized(transformer) != alone:
            reads, gives = ("does not read", "it") if alone else ("reads", "none")
            return f"its transformer {reads} the image's size (use_additional_conditions), its pipeline gives {gives}"
        return why_other_width(transformer["caption_channels"], int(configs["text_encoder"]["d_model"]))

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model whose structure fits."""
        transformer = configs["transformer"]
        return self.joined(
            PixArtAnatomy,
            Latents.read(configs, "transformer", transformer.get("in_channels", 4), default=SIZED),
            transformer["caption_channels"],
            ROWS[_pipeline(configs)],
            encoder="t5",
            pipeline=_pipeline(configs),
            negative="",
            predictions=("epsilon", "v_prediction"),
            cross_attention="attn2",
            attention=("attn1",),
            text_entry=cross_attention_entry(transformer.get("num_layers", 28)),
            text_fold=(f"{_LAST}.weight", f"{_LAST}.bias"),
            entry_width=_inner(transformer),
            hosts=hosts_in("transformer_blocks", "attn1", "attn2", "ff"),
            halves="negative-first",
            sized=_sized(transformer),
        )


def _pipeline(configs: Configs) -> str:
    return str(configs["model_index"]["_class_name"])


def _inner(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("num_attention_heads", 16) * transformer.get("attention_head_dim", 72))


def _sized(transformer: Mapping[str, Any]) -> bool:
    """Return whether a transformer reads the size of the image; where it does not say so, its sample_size does."""
    said = transformer.get("use_additional_conditions")
    return bool(transformer.get("sample_size", 128) == SIZED if said is None else said)
