"""The training recipe as typed data: ``config.yaml``, read strictly."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

CONFIG_FILE = Path(__file__).with_name("config.yaml")


class Strict(BaseModel):
    """Data whose every key is known."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimisation(Strict):
    """One training run: AdamW, linear warm-up, linear decay towards zero, averaged weights."""

    steps: int
    """Number of optimizer steps."""
    decay: int | None = None
    """Step at which the learning rate would reach zero; None: the last one."""
    batch: int
    """Number of images of one step."""
    lr: float
    """Largest learning rate of AdamW."""
    warmup: int
    """Number of steps until the rate is at its largest."""
    ema: float
    """Share of the averaged weights that each step keeps."""
    weight_decay: float
    """Weight decay of AdamW."""
    clip: float
    """Norm that gradients are shortened to."""


class ImageConfig(Strict):
    """Size and augmentation of training images."""

    size: int
    """Height and width in pixels."""
    scale: tuple[float, float]
    """Smallest and largest size of the artwork, as a share of the image."""
    shift: float
    """Largest shift of the artwork, in pixels."""


class TokenizerConfig(Strict):
    """Bounds of the tokenizer."""

    vocab_size: int
    """Largest number of tokens in the vocabulary."""
    max_length: int
    """Number of positions of a prompt."""


class VaeConfig(Strict):
    """Size and training of the autoencoder."""

    block_out_channels: tuple[int, ...]
    """Number of channels of each level."""
    latent_channels: int
    """Number of channels of the latents."""
    kl_weight: float
    """Weight of the KL divergence in the loss."""
    train: Optimisation
    """Training of the autoencoder."""


class TextEncoderConfig(Strict):
    """Size of the text encoder."""

    hidden_size: int
    """Width of the hidden states."""
    layers: int
    """Number of layers."""
    heads: int
    """Number of attention heads."""


class UnetConfig(Strict):
    """Size of the UNet."""

    block_out_channels: tuple[int, ...]
    """Number of channels of each level."""
    layers_per_block: int
    """Number of residual blocks of each level."""
    heads: int
    """Number of attention heads."""


class Phase(Strict):
    """A stretch of training with an augmentation of its own; goes on from the weights of the one before."""

    image: ImageConfig
    """Augmentation of this stretch."""
    train: Optimisation
    """Optimisation of this stretch."""


class CaptionShares(Strict):
    """How captions are sampled for images."""

    empty_caption: float
    """Share of empty captions."""
    no_style: float
    """Share of captions without a style."""
    synonym: float
    """Share of captions with a synonym in place of the name."""


class DiffusionConfig(CaptionShares):
    """Text encoder and UNet, and how captions are sampled for them."""

    text_encoder: TextEncoderConfig
    """Size of the text encoder."""
    unet: UnetConfig
    """Size of the UNet."""
    views: int
    """Number of augmented views of each image that are encoded."""
    min_snr_gamma: float
    """Bound gamma of the loss weight min(SNR, gamma) / SNR."""
    phases: tuple[Phase, ...]
    """Stretches of training, one after the other."""


class ScorerConfig(Strict):
    """Size and training of the scorer."""

    channels: tuple[int, ...]
    """Number of channels of each stage."""
    train: Optimisation
    """Training of the classifier."""


class TowerConfig(Strict):
    """Size of the text half or of the image half of the CLIP."""

    hidden_size: int
    """Width of the hidden states."""
    intermediate_size: int
    """Width inside each layer's perceptron."""
    num_hidden_layers: int
    """Number of layers."""
    num_attention_heads: int
    """Number of attention heads."""


class ClipConfig(Strict):
    """Size and training of the CLIP that gives a second opinion."""

    vision: TowerConfig
    """Image half."""
    patch: int
    """Height and width of a patch, in pixels."""
    text: TowerConfig
    """Text half."""
    projection: int
    """Number of dimensions of the space that images and texts share."""
    synonym: float
    """Share of captions with a synonym in place of the name."""
    train: Optimisation
    """Training of both halves."""


class SamplingConfig(Strict):
    """The way in which images are generated for the published figures."""

    steps: int
    """Number of sampling steps."""
    guidance: float
    """Guidance scale."""


class Config(Strict):
    """Everything that decides the weights."""

    seed: int
    """Seed that all other seeds of the training are derived from."""
    threads: int
    """Number of processor threads."""
    autocast: str
    """Compute type: ``"bfloat16"``, or ``"float32"`` for none."""
    sampling_seed: int
    """Seed of the images that are generated for the published figures."""
    image: ImageConfig
    """Images that autoencoder and classifier are trained on."""
    tokenizer: TokenizerConfig
    """Tokenizer."""
    vae: VaeConfig
    """Autoencoder."""
    diffusion: DiffusionConfig
    """Text encoder and UNet."""
    scorer: ScorerConfig
    """Classifier."""
    clip: ClipConfig
    """Images and captions in one space."""
    sampling: SamplingConfig
    """Sampling of the published figures."""


def load_config(path: Path = CONFIG_FILE) -> Config:
    """Read a recipe; an unknown or missing key is an error."""
    return Config.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
