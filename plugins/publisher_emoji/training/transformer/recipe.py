"""The recipe of the embedded transformer as typed data: ``recipe.yaml``, read strictly."""

from __future__ import annotations

from pathlib import Path

import yaml

from publisher_emoji.training.config import CaptionShares, Phase, SamplingConfig, Strict

RECIPE_FILE = Path(__file__).with_name("recipe.yaml")


class T5Size(Strict):
    """Size of the third text encoder."""

    d_model: int
    """Width of the hidden states; also of the text rows that enter the transformer."""
    d_kv: int
    """Width of one attention head."""
    d_ff: int
    """Width inside each layer's perceptron."""
    num_layers: int
    """Number of layers."""
    num_heads: int
    """Number of attention heads."""


class TransformerSize(Strict):
    """Size of the denoiser."""

    layers: int
    """Number of blocks."""
    heads: int
    """Number of attention heads."""
    head_width: int
    """Width of one attention head."""
    patch: int
    """Height and width of a patch, in latent pixels."""
    dual_layers: tuple[int, ...]
    """Blocks with a second attention of the image to itself, as Stable Diffusion 3.5 medium has them."""


class Recipe(CaptionShares):
    """Everything that decides the weights, beside the embedded model's text encoder and autoencoder."""

    seed: int
    """Seed that all other seeds of the training are derived from."""
    threads: int
    """Number of processor threads."""
    autocast: str
    """Compute type: ``"bfloat16"``, or ``"float32"`` for none."""
    sampling_seed: int
    """Seed of the images that are generated for the published figures."""
    rows: int
    """Number of positions of a prompt, in every tokenizer."""
    t5: T5Size
    """Third text encoder."""
    transformer: TransformerSize
    """Denoiser."""
    views: int
    """Number of augmented views of each image that are encoded."""
    phases: tuple[Phase, ...]
    """Stretches of training, one after the other."""
    significant_bits: int
    """Number of significant bits that each trained weight is rounded to."""
    sampling: SamplingConfig
    """Sampling of the published figures."""


def load_recipe(path: Path = RECIPE_FILE) -> Recipe:
    """Read a recipe; an unknown or missing key is an error."""
    return Recipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
