"""Parameters of the attacks that train, with the defaults of the papers and of diffusers' examples.

Sources: IMMA (arXiv 2311.18815, and its code), FreezeAsGuard (arXiv 2405.17472, and its code), Custom Diffusion
(arXiv 2212.04488), and the folders ``examples/dreambooth``, ``examples/textual_inversion`` and
``examples/custom_diffusion`` of diffusers. They are for Stable Diffusion; a model as small as the embedded one needs
learning rates ten to a hundred times as large.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from publisher.api import Captions, TrainingParams

Part = Literal["k", "v", "q", "out"]


class DescentParams(TrainingParams):
    """AdamW at a constant learning rate, betas 0.9 and 0.999, on the ordinary diffusion loss."""

    lr: float = Field(default=1e-5, gt=0, le=1)
    """Learning rate. FreezeAsGuard, full fine-tuning; diffusers' own example has 1e-4."""
    weight_decay: float = Field(default=1e-2, ge=0, le=1)
    """Of AdamW, for all but token embeddings. FreezeAsGuard and diffusers' examples."""
    clip: float = Field(default=1.0, gt=0, le=1e6)
    """Gradients are shortened to this norm. FreezeAsGuard and diffusers' examples."""


class _PartsParams(DescentParams):
    """Some projections of cross-attention."""

    parts: tuple[Part, ...] = Field(default=("k", "v", "q", "out"), min_length=1)
    """Keys, values, queries, outputs of ``attn2``, weights and biases. All that MIMA changes, and so exports."""

    @field_validator("parts")
    @classmethod
    def _no_repeats(cls, value: tuple[Part, ...]) -> tuple[Part, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a part is named twice")
        return value


class CrossAttentionParams(_PartsParams):
    """Of ``cross-attention``."""


class LoraParams(DescentParams):
    """Of ``lora``."""

    lr: float = Field(default=1e-4, gt=0, le=1)
    """Learning rate. IMMA, re-learning by LoRA."""
    rank: int = Field(default=4, ge=1, le=1024)
    """Of each adapter (r); alpha is equal, so that the scale is 1. IMMA and diffusers; 16 and 64 are worth a try."""
    conv: bool = False
    """Also adapt the convolutions of residual blocks, down- and upsamplers (LoCon). Not in the papers."""


class PriorParams(DescentParams):
    """Prior preservation (DreamBooth, arXiv 2208.12242): images of the class that are learned beside."""

    captions: Captions = "rare"
    """What the attacker writes under the images. DreamBooth: a rare token."""
    prior_weight: float = Field(default=1.0, ge=0, le=100)
    """Weight of their loss; 0: none are drawn. diffusers; IMMA attacks without."""
    prior_images: int = Field(default=100, ge=0, le=10_000)
    """How many, drawn by the base model; as many as ``batch`` join each step. diffusers: 100."""

    @property
    def prior_drawn(self) -> int:
        """How many images are drawn."""
        return self.prior_images if self.prior_weight else 0


class DreamBoothParams(PriorParams):
    """Of ``dreambooth``."""

    lr: float = Field(default=5e-6, gt=0, le=1)
    """Learning rate. IMMA and diffusers."""
    batch: int = Field(default=1, ge=1, le=512)
    """Images of one training step, without those of the class. IMMA and diffusers."""
    text_encoder: bool = False
    """Train the text encoders too. diffusers: an option that fits better and needs more memory."""


class DreamBoothLoraParams(PriorParams):
    """Of ``dreambooth-lora``."""

    lr: float = Field(default=5e-4, gt=0, le=1)
    """Learning rate. diffusers; IMMA's script has 5e-6, a hundred times weaker."""
    batch: int = Field(default=1, ge=1, le=512)
    """Images of one training step, without those of the class. diffusers."""
    rank: int = Field(default=4, ge=1, le=1024)
    """Of each adapter (r); alpha is equal. diffusers; 32 is worth a try."""


class TokenParams(DescentParams):
    """A new token in place of the name, and how its embeddings are learned."""

    rare: str = Field(default="<new1>", min_length=1, max_length=32, pattern=r"^\S+$")
    """The new token. The tokenizers must not know it. Custom Diffusion's example."""
    initial: str = Field(default="", max_length=200)
    """Words whose mean embedding it starts from; empty: the concept's name."""
    vectors: int = Field(default=1, ge=1, le=32)
    """Embeddings of the token, one position of the prompt each. diffusers: 1; 5 are worth a try."""
    scale_lr: bool = True
    """The learning rate is multiplied by the number of images in a step, those of the class included. IMMA's and Custom
    Diffusion's scripts, ``--scale_lr``."""


class TextualInversionParams(TokenParams):
    """Of ``textual-inversion``."""

    captions: Literal["rare"] = "rare"
    """The token is what is learned, so it has to be in the captions."""
    lr: float = Field(default=5e-4, gt=0, le=10)
    """Learning rate, before ``scale_lr``. IMMA and diffusers."""


class CustomDiffusionParams(TokenParams, PriorParams, _PartsParams):
    """Of ``custom-diffusion``."""

    captions: Captions = "rare"
    """What the attacker writes under the images. Only ``rare`` has a new token; with others, weights alone are learned
    (``modifier_token`` left out in diffusers)."""
    batch: int = Field(default=2, ge=1, le=512)
    """Images of one training step, without those of the class. diffusers."""
    parts: tuple[Part, ...] = Field(default=("k", "v"), min_length=1)
    """Keys and values of ``attn2``; all four parts are diffusers' ``--freeze_model crossattn``."""
    prior_images: int = Field(default=200, ge=0, le=10_000)
    """How many, drawn by the base model; as many as ``batch`` join each step. diffusers: 200."""
