"""The training recipe as typed data: ``config.yaml``, read strictly."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

CONFIG_FILE = Path(__file__).with_name("config.yaml")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimisation(_Strict):
    """One training run: AdamW, linear warm-up, linear decay towards zero, averaged weights."""

    steps: int
    decay: int | None = None
    """Step at which the learning rate would reach zero; None: the last one."""
    batch: int
    lr: float
    warmup: int
    ema: float
    weight_decay: float
    clip: float


class ImageConfig(_Strict):
    """Size and augmentation of training images."""

    size: int
    scale: tuple[float, float]
    shift: float


class TokenizerConfig(_Strict):
    """Bounds of the tokenizer."""

    vocab_size: int
    max_length: int


class VaeConfig(_Strict):
    """Size and training of the autoencoder."""

    block_out_channels: tuple[int, ...]
    latent_channels: int
    kl_weight: float
    train: Optimisation


class TextEncoderConfig(_Strict):
    """Size of the text encoder."""

    hidden_size: int
    layers: int
    heads: int


class UnetConfig(_Strict):
    """Size of the UNet."""

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    heads: int


class Phase(_Strict):
    """A stretch of training with an augmentation of its own; goes on from the weights of the one before."""

    image: ImageConfig
    train: Optimisation


class DiffusionConfig(_Strict):
    """Text encoder and UNet, and how captions are sampled for them."""

    text_encoder: TextEncoderConfig
    unet: UnetConfig
    views: int
    empty_caption: float
    no_style: float
    synonym: float
    min_snr_gamma: float
    phases: tuple[Phase, ...]


class ScorerConfig(_Strict):
    """Size and training of the scorer."""

    channels: tuple[int, ...]
    train: Optimisation


class SamplingConfig(_Strict):
    """How images are sampled for the published figures."""

    steps: int
    guidance: float


class Config(_Strict):
    """Everything that decides the weights."""

    seed: int
    threads: int
    autocast: str
    sampling_seed: int
    image: ImageConfig
    tokenizer: TokenizerConfig
    vae: VaeConfig
    diffusion: DiffusionConfig
    scorer: ScorerConfig
    sampling: SamplingConfig


def load_config(path: Path = CONFIG_FILE) -> Config:
    """Read a recipe; an unknown or missing key is an error."""
    return Config.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
