"""Z-Image: one stream of image and text, that reads the states before the last layer of a causal language model.

The network says the image minus the noise, at a time that runs from noise to image; :meth:`ZImageAnatomy.predict` turns
both round. Text enters by one linear map of the rows (``cap_embedder.1``) behind a norm (``cap_embedder.0``). The
pipeline puts the prompt into a chat template and keeps all of its rows, as a list: there is no padding.
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

ROWS = 512
"""Rows of text that the pipeline reads at most (``max_sequence_length``)."""
SIZE = 128
"""Height and width of the latents where the configuration says none: those of images of 1024 pixels."""


@dataclass(frozen=True)
class ZImageAnatomy(OneEncoder):
    """A ``ZImageTransformer2DModel`` and the pipelines of Z-Image around it."""

    def call(self, guidance: float) -> dict[str, Any]:
        """Return the scale as the pipeline counts it: 0 is no guidance, so it is one less than elsewhere."""
        return {"guidance_scale": max(guidance - 1, 0.0), "max_sequence_length": ROWS}

    def read_text(self, pipeline: Any, texts: Sequence[str]) -> Text:
        """Return the rows of the whole template; the mask leaves out what fills up shorter texts."""
        from torch.nn.utils.rnn import pad_sequence

        from publisher.api.diffusion.text import Text

        rows, _ = pipeline.encode_prompt(
            list(texts),
            device=pipeline.text_encoder.device,
            do_classifier_free_guidance=False,
            max_sequence_length=ROWS,
        )
        mask = pad_sequence([one.new_ones(len(one)).long() for one in rows], batch_first=True)
        return Text(pad_sequence(rows, batch_first=True).float(), mask=mask)

    def read_ids(self, pipeline: Any, text: str) -> tuple[tuple[int, ...], ...]:
        """Return the tokens of the template with the prompt in it."""
        told = pipeline.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
        return (tuple(pipeline.tokenizer(told, verbose=False).input_ids),)

    def enter(self, rows: Tensor, read: Callable[[str], Tensor]) -> Tensor:
        """Return the rows behind the norm."""
        return rms_norm(rows, read("cap_embedder.0.weight"), self.norm_eps)

    def predict(self, network: Any, x: Tensor, t: Tensor, text: Text) -> Tensor:
        """Return the velocity of flow matching, noise minus image: what the network says, with the other sign."""
        import torch

        masks = [None] * len(x) if text.mask is None else list(text.mask.bool())
        rows = [one if mask is None else one[mask] for one, mask in zip(text.states, masks, strict=True)]
        (said,) = network(list(x.unsqueeze(2)), (1000 - t) / 1000, rows, return_dict=False)
        return -torch.stack(said).squeeze(2)


class ZImage(TransformerFamily):
    """Z-Image and Z-Image Turbo, and every model of their structure; models that read images too are refused."""

    name = "z-image"
    version = "1"
    summary = "Z-Image: one stream of image and text, one causal language model with a chat template"
    pipelines = tuple(f"ZImage{task}Pipeline" for task in ("", "Img2Img", "Inpaint"))
    parts: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "transformer": ("ZImageTransformer2DModel",),
        "vae": ("AutoencoderKL",),
        "text_encoder": ("Qwen3Model", "Qwen3ForCausalLM"),
        "tokenizer": (),
    }
    lacks: ClassVar[Mapping[Capability, str]] = {
        "cross-attention": JOINT,
        "clip-text": LANGUAGE_MODEL,
    }

    def misfit(self, configs: Configs) -> str:
        """Return which sizes or options are not of this family, in one sentence; empty if all fit."""
        transformer, vae = configs["transformer"], configs["vae"]
        if transformer.get("siglip_feat_dim"):
            return "its transformer reads images beside the text (siglip_feat_dim), and words alone do not give it any"
        read, latent = transformer.get("in_channels", 16), vae.get("latent_channels", 4)
        if read != latent:
            return f"its transformer reads {read} channels, its autoencoder has {latent}"
        if vae.get("shift_factor") is None:
            return "its autoencoder has no shift_factor, which its pipeline adds before it decodes"
        patches = (list(transformer.get("all_patch_size", (2,))), list(transformer.get("all_f_patch_size", (1,))))
        if patches != ([2], [1]):
            return f"its transformer has patches of {patches[0]} pixels and {patches[1]} frames, not of 2 and 1"
        if any(size % 2 for size in _latents(configs).size):
            return "its sample_size is odd, and each token is 2 x 2 latent pixels"
        return why_other_width(_width(transformer), int(configs["text_encoder"]["hidden_size"]))

    def anatomy(self, configs: Configs) -> Anatomy:
        """Return the parts of a model whose structure fits."""
        transformer = configs["transformer"]
        return self.joined(
            ZImageAnatomy,
            _latents(configs),
            _width(transformer),
            ROWS,
            vae_keys=("shift_factor",),
            attention=("attention",),
            text_entry=("cap_embedder.1.weight",),
            hosts=hosts_in("layers", "attention", "feed_forward"),  # the refiners before them have none
            halves="positive-first",
            head_keys=("n_heads", "n_kv_heads"),
            norm_eps=float(transformer.get("norm_eps", 1e-5)),
        )


def _width(transformer: Mapping[str, Any]) -> int:
    return int(transformer.get("cap_feat_dim", 2560))


def _latents(configs: Configs) -> Latents:
    return Latents.read(configs, "transformer", configs["transformer"].get("in_channels", 16), default=SIZE)
